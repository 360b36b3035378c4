//! The CNI `bandwidth` capability: towards the pod a token bucket of `tc` on its link, from the pod a
//! limit in the rules (policing by `tc` needs an action module that many kernels lack).

use tokio::process::Command;

use crate::cni::Bandwidth;
use crate::error::{Context, NetError, Result};

/// Used where a rate comes without a burst, in bits.
const BURST_BITS_DEFAULT: u64 = 4 << 20;

/// Rate and burst, in bits, of what the pod may send.
pub(crate) fn egress(bandwidth: &Bandwidth) -> Option<(u64, u64)> {
    (bandwidth.egress_rate > 0).then(|| (bandwidth.egress_rate, burst(bandwidth.egress_burst)))
}

fn burst(bits: u64) -> u64 {
    if bits == 0 { BURST_BITS_DEFAULT } else { bits }
}

/// The arguments for `tc` that limit what is sent out of `interface`.
fn arguments(interface: &str, bandwidth: &Bandwidth) -> Vec<String> {
    let (rate, burst) = (bandwidth.ingress_rate, burst(bandwidth.ingress_burst).div_ceil(8));
    let text = format!("qdisc replace dev {interface} root tbf rate {rate}bit burst {burst}b latency 25ms");
    text.split_whitespace().map(str::to_owned).collect()
}

/// Limits what the pod behind `interface` (the host's end) receives.
pub(crate) async fn limit_ingress(interface: &str, bandwidth: &Bandwidth) -> Result<()> {
    if bandwidth.ingress_rate == 0 {
        return Ok(());
    }
    let arguments = arguments(interface, bandwidth);
    let output = Command::new("tc")
        .args(&arguments)
        .kill_on_drop(true)
        .output()
        .await
        .context(|| "running tc for the pod's bandwidth limit (is iproute2 installed?)".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetError::Config(format!("tc {}: {why}", arguments.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bits_and_bursts_become_bytes() {
        let limits = Bandwidth { ingress_rate: 1_000_000, ingress_burst: 80_000, ..Bandwidth::default() };
        let expected = "qdisc replace dev v0 root tbf rate 1000000bit burst 10000b latency 25ms";
        assert_eq!(arguments("v0", &limits).join(" "), expected);
        assert_eq!(egress(&limits), None);
    }
}
