//! Which addresses events are sent to. Whoever manages a project writes webhooks, and what this machine reaches must
//! not be theirs with it: nothing goes to the machine itself, to its links (where clouds have their metadata), or to
//! groups of machines, unless the operator says so. What counts is the address that is connected to, not the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use gantry_oci::client::Url;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The networks that are open although they would not be.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach(Arc<[IpNet]>);

impl Reach {
    pub(super) fn new(open: &[IpNet]) -> Self {
        Self(open.into())
    }

    pub(super) fn permits(&self, address: IpAddr) -> bool {
        let address = v4_inside(address);
        self.0.iter().any(|net| net.contains(&address)) || !is_special(address)
    }

    /// The address of a receiver, if nothing is wrong with it. Names are looked up at each connection.
    pub(super) fn url(&self, text: &str) -> Result<Url, String> {
        let url: Url = text.parse().map_err(|error| format!("url: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err("url: it is no https://HOST[:PORT]/PATH without a user".to_owned());
        }
        // Of a name: it is looked up, which is too early for an answer.
        let literal = url.host_str().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>();
        match literal {
            Ok(address) if !self.permits(address) => Err(format!("url: {}", closed(address))),
            _ => Ok(url),
        }
    }
}

fn closed(address: IpAddr) -> String {
    format!("webhooks do not go to {address}; an operator can open it ([registry] webhooks_may_reach)")
}

/// The IPv4 address that is written as an IPv6 one: mapped (RFC 4291, 2.5.5.2), or behind NAT64 (RFC 6052).
fn v4_inside(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let nat64 = [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0];
    match v6.to_ipv4_mapped() {
        Some(v4) => v4.into(),
        None if nat64 => Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into(),
        None => address,
    }
}

fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let this_network = v4.octets()[0] == 0;
            this_network || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            let compatible = v6.segments()[..6] == [0; 6];
            let metadata = v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            compatible || metadata || v6.is_unicast_link_local() || v6.is_multicast()
        }
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let open: Vec<SocketAddr> = found.iter().copied().filter(|a| this.permits(a.ip())).collect();
            match (open.is_empty(), found.first()) {
                (true, Some(first)) => Err(closed(first.ip()).into()),
                _ => Ok(Box::new(open.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_where_only_this_machine_gets() {
        let open = Reach::new(&["127.0.0.9/32".parse().expect("a network")]);
        for (host, wanted) in [
            ("192.0.2.7", true),
            ("10.0.0.1", true),
            ("[2001:db8::1]", true),
            ("receiver.example.org", true),
            ("127.0.0.9", true),
            ("[::ffff:127.0.0.9]", true),
            ("127.0.0.1", false),
            // As browsers write it, too.
            ("0x7f.1", false),
            ("2130706433", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("[::]", false),
            ("[::1]", false),
            ("[::ffff:169.254.169.254]", false),
            ("[64:ff9b::7f00:1]", false),
            ("[fe80::1]", false),
            ("[ff02::1]", false),
            ("[fd00:ec2::254]", false),
        ] {
            let found = open.url(&format!("https://{host}/hook?a=b"));
            assert_eq!(found.is_ok(), wanted, "{host}: {found:?}");
        }
        for bad in ["ftp://x/", "https://me:x@host/", "hook", "https://"] {
            assert!(open.url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn names_are_held_to_it_when_they_are_looked_up() {
        let name = || "localhost".parse::<Name>().expect("a name");
        let refused = Reach::default().resolve(name()).await.err().expect("closed").to_string();
        assert!(refused.contains("webhooks_may_reach"), "{refused}");
        let open = Reach::new(&["127.0.0.0/8".parse().expect("v4"), "::1/128".parse().expect("v6")]);
        assert!(open.resolve(name()).await.expect("open").count() > 0);
    }
}
