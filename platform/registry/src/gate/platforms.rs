//! Which images of an index a node may take: what containerd chooses from, and never less.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;

use crate::store::ManifestRecord;

/// `os/architecture`, in the words of Go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
}

impl Platform {
    /// As records and people write it; what follows (a variant) does not matter here. Nothing where a part is empty.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (os, rest) = text.split_once('/')?;
        let architecture = rest.split_once('/').map_or(rest, |(architecture, _)| architecture);
        // Names that containerd takes for others.
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let architecture = match architecture.to_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "i386" => "386".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "armhf" | "armel" => "arm".to_owned(),
            architecture => architecture.to_owned(),
        };
        (!os.is_empty() && !architecture.is_empty()).then_some(Self { os, architecture })
    }

    /// Also images for the smaller brother of its processor are run, where there is no better one.
    fn runs(&self, image: &Self) -> bool {
        let brother = match self.architecture.as_str() {
            "amd64" => "386",
            "arm64" => "arm",
            other => other,
        };
        self.os == image.os && [self.architecture.as_str(), brother].contains(&image.architecture.as_str())
    }
}

/// The platforms of all nodes; none where one does not say its own, or there is none: then every image counts.
pub(crate) fn of_nodes<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeSet<Platform> {
    let platform = |node: &Node| {
        let info = node.status.as_ref()?.node_info.as_ref()?;
        Platform::parse(&format!("{}/{}", info.operating_system, info.architecture))
    };
    nodes.map(platform).collect::<Option<_>>().unwrap_or_default()
}

/// Places of those among the manifests of an index that a node of these platforms may take. Left out is only what says
/// that it is for others; with no platforms, nothing is.
pub(crate) fn taken<'a>(
    record: &'a ManifestRecord,
    nodes: &'a BTreeSet<Platform>,
) -> impl Iterator<Item = &'a gantry_oci::Digest> {
    let foreign = |place: usize| {
        let image = record.platforms.get(place).and_then(|text| Platform::parse(text));
        image.is_some_and(|image| !nodes.is_empty() && !nodes.iter().any(|node| node.runs(&image)))
    };
    record.manifests.iter().enumerate().filter(move |(place, _)| !foreign(*place)).map(|(_, digest)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_oci::Digest;
    use serde_json::json;

    #[test]
    fn only_what_is_said_to_be_for_others_is_left_out() {
        let images = [
            "linux/amd64",
            "linux/386",
            "linux/arm64/v8",
            "linux/arm/v7",
            "windows/amd64",
            "unknown/unknown",
            "Linux/x86_64",
            "/amd64",
            "linux/",
            "linux",
            "",
        ];
        let record = ManifestRecord {
            // The last one has no platform of its own in the list.
            manifests: images.iter().chain(&["beyond"]).map(|image| Digest::of(image.as_bytes())).collect(),
            platforms: images.iter().map(|image| (*image).to_owned()).collect(),
            ..ManifestRecord::default()
        };
        let unclear = "/amd64 linux/ linux  beyond";
        for (nodes, want) in [
            (&["linux/amd64"][..], "linux/amd64 linux/386 Linux/x86_64"),
            (&["linux/arm64"], "linux/arm64/v8 linux/arm/v7"),
            (&["linux/riscv64"], ""),
            (
                &["linux/amd64", "linux/arm64"],
                "linux/amd64 linux/386 linux/arm64/v8 linux/arm/v7 Linux/x86_64",
            ),
        ] {
            let nodes = nodes.iter().map(|node| Platform::parse(node).expect("a platform")).collect();
            let name = |digest: &Digest| {
                let all = images.iter().chain(&["beyond"]);
                all.copied().find(|image| Digest::of(image.as_bytes()) == *digest).expect("an image")
            };
            let found: Vec<&str> = taken(&record, &nodes).map(name).collect();
            assert_eq!(found.join(" "), format!("{want} {unclear}").trim_start(), "{nodes:?}");
        }
        assert_eq!(taken(&record, &BTreeSet::new()).count(), record.manifests.len());
    }

    #[test]
    fn nodes_say_what_they_are_or_everything_counts() {
        let node = |info: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "status": { "nodeInfo": info } })).expect("a node")
        };
        let info = |architecture: &str| {
            json!({ "operatingSystem": "linux", "architecture": architecture, "bootID": "", "machineID": "",
                "systemUUID": "", "kernelVersion": "", "kernelProxyVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "", "osImage": "", "containerRuntimeVersion": "" })
        };
        let (one, other) = (node(info("amd64")), node(info("arm64")));
        assert_eq!(of_nodes([&one, &other, &one].into_iter()).len(), 2);
        assert!(of_nodes([&one, &Node::default()].into_iter()).is_empty());
        assert!(of_nodes([&one, &node(info(""))].into_iter()).is_empty());
        assert!(of_nodes(std::iter::empty()).is_empty());
    }
}
