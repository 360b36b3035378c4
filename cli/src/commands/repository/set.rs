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
