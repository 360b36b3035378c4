//! `gantry why pod/NAME`: the scheduler's whole explanation, node by node.

use anyhow::{Context as _, bail};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};

use crate::Context;

#[derive(clap::Args, Debug)]
pub struct WhyArgs {
    /// The pod, as pod/NAME or NAME
    #[arg(value_name = "pod/NAME")]
    pod: String,
    /// Namespace of the pod (default: the context's)
    #[arg(short, long)]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

/// The kind the scheduler keeps one object of per pod it looked at.
fn explanation_kind() -> ApiResource {
    let kind = GroupVersionKind::gvk("scheduling.gantry.dev", "v1alpha1", "SchedulingExplanation");
    ApiResource::from_gvk_with_plural(&kind, "schedulingexplanations")
}

pub async fn run(arguments: WhyArgs, context: &Context) -> anyhow::Result<()> {
    let name = match arguments.pod.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        Some((kind, _)) => bail!("the scheduler places pods; it knows nothing of a {kind}"),
        None => &arguments.pod,
    };
    let namespace = arguments.namespace.as_deref().unwrap_or(context.default_namespace());
    let api: Api<DynamicObject> = Api::namespaced_with(context.kube()?, namespace, &explanation_kind());
    let found = api.get_opt(name).await?;
    let Some(explanation) = found else {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(context.kube()?, namespace);
        let pod = pods.get(name).await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        match node {
            Some(node) => bail!("pod \"{name}\" runs on {node}; the scheduler keeps no explanation of it"),
            None => bail!("pod \"{name}\" has not been looked at by the scheduler yet"),
        }
    };
    if arguments.output.is_some() {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
        return Ok(());
    }
    print(&explanation).context("the explanation cannot be read")
}

fn print(explanation: &DynamicObject) -> anyhow::Result<()> {
    let status = &explanation.data["status"];
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    println!("Pod:      {}/{}", explanation.namespace().unwrap_or_default(), explanation.name_any());
    println!("Decided:  {} (attempt {})", text("time"), status["attempt"].as_u64().unwrap_or(1));
    match status["node"].as_str() {
        Some(node) => println!("Node:     {node}"),
        None => println!("Node:     none: {}", text("message")),
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["NODE", "FITS", "SCORE", "REASONS"]);
    for node in status["nodes"].as_array().into_iter().flatten() {
        let reasons = node["reasons"].as_array().into_iter().flatten().filter_map(|r| r.as_str());
        let scores = node["scores"].as_array().into_iter().flatten();
        let scores = scores.map(|s| format!("{}={}", s["plugin"].as_str().unwrap_or("?"), s["score"]));
        let why: Vec<String> = reasons.map(str::to_owned).chain(scores).collect();
        let fits = if node["fits"].as_bool().unwrap_or(false) { "yes" } else { "no" };
        let total = node["score"].as_i64().map(|s| s.to_string()).unwrap_or_default();
        table.add_row([
            node["name"].as_str().unwrap_or("?").to_owned(),
            fits.to_owned(),
            total,
            why.join("; "),
        ]);
    }
    println!("{table}");
    Ok(())
}
