//! The `loopback` plugin, which containerd's CRI asks for beside the pod network: the same program under
//! a second name, so that no further package is needed. It needs no node: the namespace is all it has.

use std::path::Path;

use rtnetlink::LinkUnspec;
use serde_json::{Value, json};

use super::{CniError, Reply, Request, code};
use crate::error::{Context, Result};
use crate::netns;

/// The plugin's type and file name.
pub(super) const NAME: &str = "loopback";

/// Answers ADD, DEL and CHECK of the loopback interface.
pub(super) fn answer(request: &Request, version: &str) -> Reply {
    if request.command != "ADD" {
        // The interface lives and dies with its namespace.
        return Ok(Value::Null);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CniError::new(code::IO_FAILURE, format!("starting a runtime: {e}")))?;
    runtime.block_on(set_up(Path::new(&request.netns)))?;
    let mut ip = json!({ "address": "127.0.0.1/8", "interface": 0 });
    if version.starts_with("0.") {
        ip["version"] = json!("4");
    }
    let interface = json!({ "name": request.ifname, "mac": "00:00:00:00:00:00", "sandbox": request.netns });
    Ok(json!({ "cniVersion": version, "interfaces": [interface], "ips": [ip], "dns": {} }))
}

async fn set_up(namespace: &Path) -> Result<()> {
    netns::run_in(netns::open(namespace)?, |handle| async move {
        let up = LinkUnspec::new_with_name("lo").up().build();
        handle.link().set(up).execute().await.context(|| "setting the loopback up".to_owned())
    })
    .await
}
