//! The formats that only built-in kinds need; names, labels and quantities are those of
//! `gantry_kube_logic`.

pub(crate) use gantry_kube_logic::names::{
    config_map_key, dns1123_label, dns1123_subdomain, label_value, port_name, port_number, qualified_name,
};
use gantry_kube_logic::quantity::Quantity;
use serde_json::Value;

/// Environment variable names: printable ASCII without `=`.
pub(crate) fn env_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

pub(crate) fn ip(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

pub(crate) fn cidr(value: &str) -> Vec<String> {
    if value.parse::<ipnet::IpNet>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// A percentage: digits and `%`.
pub(crate) fn percent(value: &str) -> Option<i64> {
    let digits = value.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A JSON quantity (string or number) in nano-units; `None` where it is not a quantity.
pub(crate) fn quantity_of(value: &Value) -> Option<i128> {
    Quantity::from_json(value).ok().map(|q| q.nano())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_shares() {
        assert!(ip("10.9.8.7").is_empty() && ip("2001:db8::1").is_empty());
        assert!(!ip("10.9.8").is_empty());
        assert!(cidr("10.9.8.0/24").is_empty() && !cidr("10.9.8.0").is_empty());
        assert_eq!((percent("25%"), percent("%"), percent("25")), (Some(25), None, None));
        assert!(env_name("A.b-c d").is_empty() && !env_name("A=b").is_empty() && !env_name("").is_empty());
        assert_eq!(quantity_of(&serde_json::json!("100m")), Some(100_000_000));
        assert_eq!(quantity_of(&serde_json::json!(2)), Some(2_000_000_000));
        assert_eq!(quantity_of(&serde_json::json!("2x")), None);
    }
}
