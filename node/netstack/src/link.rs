//! Links, addresses and routes over netlink. Every function may be repeated.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::config::{NetConfig, mac_of};
use crate::error::{Context, Result, is_errno};
use crate::sysctl;

/// Where a link hangs: the names of a veth pair and what the pod's end gets.
#[derive(Clone, Debug)]
pub(crate) struct PodLink {
    pub host_interface: String,
    pub pod_interface: String,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub mtu: u32,
}

/// The index of a link, or `None` when there is none of that name.
pub(crate) async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>> {
    Ok(find(handle, name).await?.map(|message| message.header.index))
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(found) => Ok(found),
        Err(error) if is_errno(&error, Errno::ENODEV) => Ok(None),
        Err(error) => Err(error).context(|| format!("looking for the link {name}")),
    }
}

/// Makes (or repairs) the bridge: its fixed MAC, the gateway address, the DNS address, the route of the
/// service range. Returns its index.
pub(crate) async fn ensure_bridge(handle: &Handle, config: &NetConfig, mtu: u32) -> Result<u32> {
    let name = &config.bridge;
    let mac = mac_of(config.gateway()).to_vec();
    let message = LinkBridge::new(name).address(mac.clone()).mtu(mtu).build();
    match handle.link().add(message).execute().await {
        Ok(()) => {}
        Err(error) if is_errno(&error, Errno::EEXIST) => {}
        Err(error) => return Err(error).context(|| format!("adding the bridge {name}")),
    }
    let index = index_of(handle, name).await?.ok_or_else(|| crate::NetError::Netlink {
        what: format!("finding the bridge {name}"),
        source: rtnetlink::Error::RequestFailed,
    })?;
    let up = LinkUnspec::new_with_index(index).address(mac).up().build();
    handle.link().set(up).execute().await.context(|| format!("setting the bridge {name} up"))?;
    // A /32: no route of the whole range that would claim addresses of pods which do not exist yet is
    // needed beyond the explicit one below, and the gateway answers ARP for itself only.
    for address in [config.gateway(), config.dns_ip] {
        add_address(handle, index, address).await?;
    }
    for range in [config.pod_cidr, config.service_cidr] {
        add_range_route(handle, index, range, config.gateway()).await?;
    }
    Ok(index)
}

pub(crate) async fn add_address(handle: &Handle, index: u32, address: Ipv4Addr) -> Result<()> {
    let added = handle.address().add(index, IpAddr::V4(address), 32).replace().execute().await;
    added.context(|| format!("adding the address {address}"))
}

/// The service range leads to the bridge so that the host has a route, and a good source address, for
/// cluster addresses even without a default route; the rules translate before anything is sent.
async fn add_range_route(handle: &Handle, index: u32, range: Ipv4Net, source: Ipv4Addr) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .output_interface(index)
        .scope(RouteScope::Link)
        .pref_source(source)
        .build();
    handle.route().add(route).replace().execute().await.context(|| format!("adding the route to {range}"))
}

/// Makes the veth pair with its far end inside the pod's namespace and its near end on the bridge.
pub(crate) async fn ensure_pair(
    handle: &Handle,
    bridge: u32,
    link: &PodLink,
    namespace: &File,
) -> Result<()> {
    let existing = index_of(handle, &link.host_interface).await?;
    if existing.is_some() && pod_has_link(link, namespace).await? {
        return join_bridge(handle, bridge, link).await;
    }
    if existing.is_some() {
        // The pair of an attempt that did not come to its end, or of a namespace that is gone.
        remove(handle, &link.host_interface).await?;
    }
    let mut peer = LinkUnspec::new_with_name(&link.pod_interface)
        .address(mac_of(link.address).to_vec())
        .mtu(link.mtu)
        .build();
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(link.host_interface.clone())
        .mtu(link.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle
        .link()
        .add(pair)
        .execute()
        .await
        .context(|| format!("adding the veth pair {}", link.host_interface))?;
    join_bridge(handle, bridge, link).await
}

async fn pod_has_link(link: &PodLink, namespace: &File) -> Result<bool> {
    let namespace = namespace.try_clone().context(|| "duplicating a namespace descriptor".to_owned())?;
    let (name, mac) = (link.pod_interface.clone(), mac_of(link.address).to_vec());
    crate::netns::run_in(namespace, move |handle| async move {
        let found = find(&handle, &name).await?;
        Ok(found.is_some_and(|link| link.attributes.contains(&LinkAttribute::Address(mac))))
    })
    .await
}

async fn join_bridge(handle: &Handle, bridge: u32, link: &PodLink) -> Result<()> {
    let name = &link.host_interface;
    let Some(index) = index_of(handle, name).await? else {
        return Err(rtnetlink::Error::RequestFailed).context(|| format!("the veth {name} vanished"));
    };
    sysctl::try_set(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
    let message = LinkUnspec::new_with_index(index).controller(bridge).mtu(link.mtu).up().build();
    handle.link().set(message).execute().await.context(|| format!("putting {name} on the bridge"))?;
    // A pod that reaches itself through its own service comes back out of the port it went in by.
    let hairpin = LinkBridgePort::new(index).hairpin(true).build();
    handle.link().set_port(hairpin).execute().await.context(|| format!("setting hairpin on {name}"))
}

/// Inside the pod: loopback, address, routes. Pods have /32 addresses and reach everybody, their
/// neighbours too, through the gateway: so every packet passes the host's rules, and a service's reply
/// from a pod of the same bridge is translated back without `br_netfilter`.
pub(crate) async fn configure_pod(handle: &Handle, link: &PodLink) -> Result<()> {
    let name = &link.pod_interface;
    let loopback = LinkUnspec::new_with_name("lo").up().build();
    handle.link().set(loopback).execute().await.context(|| "setting the loopback up".to_owned())?;
    let Some(index) = index_of(handle, name).await? else {
        return Err(rtnetlink::Error::RequestFailed).context(|| format!("{name} is not in the pod"));
    };
    // Announce the address when the link comes up; never learn a shortcut around the host's rules.
    sysctl::try_set(&format!("ipv4/conf/{name}/arp_notify"), "1");
    sysctl::try_set(&format!("ipv4/conf/{name}/accept_redirects"), "0");
    sysctl::try_set("ipv4/conf/all/accept_redirects", "0");
    add_address(handle, index, link.address).await?;
    let up = LinkUnspec::new_with_index(index).mtu(link.mtu).up().build();
    handle.link().set(up).execute().await.context(|| format!("setting {name} up in the pod"))?;
    let on_link = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(link.gateway, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let default =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(link.gateway).output_interface(index).build();
    for route in [on_link, default] {
        handle
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .context(|| format!("adding the routes of {}", link.address))?;
    }
    Ok(())
}

/// Does the pod's interface still carry its address?
pub(crate) async fn pod_is_configured(handle: &Handle, link: &PodLink) -> Result<bool> {
    let Some(index) = index_of(handle, &link.pod_interface).await? else { return Ok(false) };
    let addresses: Vec<_> = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute()
        .try_collect()
        .await
        .context(|| format!("listing the addresses of {}", link.pod_interface))?;
    let wanted = AddressAttribute::Address(IpAddr::V4(link.address));
    Ok(addresses.iter().any(|a| a.header.family == AddressFamily::Inet && a.attributes.contains(&wanted)))
}

/// Removes a link that may be gone.
pub(crate) async fn remove(handle: &Handle, name: &str) -> Result<()> {
    let Some(index) = index_of(handle, name).await? else { return Ok(()) };
    match handle.link().del(index).execute().await {
        Ok(()) => Ok(()),
        Err(error) if is_errno(&error, Errno::ENODEV) => Ok(()),
        Err(error) => Err(error).context(|| format!("removing the link {name}")),
    }
}

/// The names of all links that begin with `prefix`.
pub(crate) async fn names_with_prefix(handle: &Handle, prefix: &str) -> Result<Vec<String>> {
    let links: Vec<_> =
        handle.link().get().execute().try_collect().await.context(|| "listing links".to_owned())?;
    let names = links.into_iter().flat_map(|link| link.attributes).filter_map(|attribute| match attribute {
        LinkAttribute::IfName(name) if name.starts_with(prefix) => Some(name),
        _ => None,
    });
    Ok(names.collect())
}

/// The MTU of the link the default route leads out of; 1500 where there is none.
pub(crate) fn uplink_mtu() -> u32 {
    const ETHERNET_MTU: u32 = 1500;
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let uplink = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| name.to_owned())
    });
    let mtu = uplink.and_then(|name| {
        std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?.trim().parse::<u32>().ok()
    });
    mtu.unwrap_or(ETHERNET_MTU).clamp(1280, 65_535)
}
