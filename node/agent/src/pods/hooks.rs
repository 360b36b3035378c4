//! Lifecycle hooks: commands, requests, pauses right after a start or before a stop.

use std::net::IpAddr;
use std::time::Duration;

use gantry_cri::{ExecSyncRequest, Runtime};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probes::HttpCheck;

/// Runs a hook; `Err` carries what to tell the user.
pub(crate) async fn run(
    runtime: &Runtime,
    handler: &LifecycleHandler,
    container: &Container,
    run_id: &str,
    pod_ip: Option<IpAddr>,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let cmd = exec.command.clone().unwrap_or_default();
        let request = ExecSyncRequest { container_id: run_id.to_owned(), cmd: cmd.clone(), timeout: 0 };
        let answer = runtime.exec_sync(request).await.map_err(|e| e.to_string())?;
        if answer.exit_code != 0 {
            let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
            let (cmd, code) = (cmd.join(" "), answer.exit_code);
            return Err(format!("command '{cmd}' exited with {code}: {output}"));
        }
    } else if let Some(get) = &handler.http_get {
        let ip = pod_ip.ok_or("the pod has no address")?;
        HttpCheck::new(get, container, ip)?.get(Duration::from_secs(60)).await?;
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}
