//! `gantry repository set acme/web/front --visibility public`

use anyhow::bail;
use kube::Client;
use serde_json::{Map, Value};

use crate::commands::identity::render::OutputArgs;

#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// REPOSITORY, e.g. acme/web/front
    repository: String,
    /// Who may pull beside its owner
    #[arg(long, value_enum)]
    visibility: Option<Visibility>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    /// Tags that, once pushed, are neither moved nor removed: patterns with * and ?; '' for none
    #[arg(long, value_name = "PATTERN")]
    immutable_tags: Vec<String>,
    /// Largest image, e.g. 500Mi; '' for no bound
    #[arg(long, value_name = "QUANTITY")]
    max_image_size: Option<String>,
    /// Bytes of everything in it, e.g. 20Gi; '' for no bound
    #[arg(long, value_name = "QUANTITY")]
    quota: Option<String>,
    /// Images that one caller may pull in a minute; 0 for no bound
    #[arg(long, value_name = "NUMBER")]
    pulls_per_minute: Option<u32>,
    /// Images that one caller may push in a minute; 0 for no bound
    #[arg(long, value_name = "NUMBER")]
    pushes_per_minute: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Visibility {
    /// Its owner, and whom it is shared with
    Private,
    /// Whoever is signed in
    Public,
}

impl Visibility {
    fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

pub async fn run(arguments: SetArgs, client: Client) -> anyhow::Result<()> {
    let found = super::find(&client, &arguments.repository).await?;
    let mut spec = Map::new();
    let rules = rules(&arguments);
    if !rules.is_empty() {
        spec.insert("rules".to_owned(), Value::Object(rules));
    }
    if let Some(visibility) = arguments.visibility {
        spec.insert("visibility".to_owned(), visibility.as_str().into());
    }
    if let Some(description) = arguments.description {
        spec.insert("description".to_owned(), description.into());
    }
    if spec.is_empty() {
        bail!("nothing to change: name at least one thing to set");
    }
    let changed = super::change(&client, &found, Value::Object(spec)).await?;
    super::done(&changed, "changed", arguments.output.output)
}

/// The rules to change; `null` takes one away.
fn rules(arguments: &SetArgs) -> Map<String, Value> {
    let mut rules = Map::new();
    if !arguments.immutable_tags.is_empty() {
        let patterns: Vec<&String> = arguments.immutable_tags.iter().filter(|p| !p.is_empty()).collect();
        rules.insert("immutableTags".to_owned(), serde_json::json!(patterns));
    }
    for (field, value) in [("maxImageSize", &arguments.max_image_size), ("quota", &arguments.quota)] {
        if let Some(text) = value {
            let value = if text.is_empty() { Value::Null } else { text.as_str().into() };
            rules.insert(field.to_owned(), value);
        }
    }
    let rates =
        [("pullsPerMinute", arguments.pulls_per_minute), ("pushesPerMinute", arguments.pushes_per_minute)];
    for (field, value) in rates {
        if let Some(number) = value {
            let value = if number == 0 { Value::Null } else { number.into() };
            rules.insert(field.to_owned(), value);
        }
    }
    rules
}
