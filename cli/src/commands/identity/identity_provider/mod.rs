//! `gantry identity-provider …`: where people come from who are not managed here.

mod given;
mod show;

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use gantry_identity_api::{CONFIRM_DISABLE, Group, IdentityProvider, IdentityProviderSpec, ProviderType};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::kinds::Kind as _;
use super::lookup::{Lookup, NOTHING_TO_SET, plain};
use super::names;
use super::ops::{self, DeleteArgs, EnabledArgs, ListArgs};
use super::render::OutputArgs;
use given::SecretArgs;

/// Directories, OpenID providers and other Keystones whose people sign in here
#[derive(clap::Subcommand, Debug)]
pub enum IdentityProviderCommand {
    /// Make a provider
    #[command(after_help = "\
Examples:
  gantry identity-provider create corporate --type oidc --domain acme --config-file oidc.yaml
  pass show directory | gantry identity-provider create directory --type ldap --domain acme \\
    --config-file ldap.yaml --secret default/directory --password-file -

An ldap.yaml:
  urls: [ldaps://ldap.example.org]
  bindDn: cn=gantry,dc=example,dc=org
  users: {base: \"ou=people,dc=example,dc=org\"}
  groups: {base: \"ou=groups,dc=example,dc=org\"}")]
    Create(Box<CreateArgs>),
    /// List the providers you see
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show providers, with their configuration and conditions
    #[command(visible_alias = "show")]
    Get(ProviderGetArgs),
    /// Change a provider
    #[command(after_help = "\
Examples:
  gantry identity-provider set directory --disable
  gantry identity-provider set corporate --map-group idp:devs=acme/devs")]
    Set(Box<SetArgs>),
    /// Let a listing disable more people at once than is likely
    #[command(after_help = "Example:\n  gantry identity-provider confirm-disable directory 120")]
    ConfirmDisable(ConfirmArgs),
    /// Delete providers; their users stay, but cannot sign in
    Delete(ProviderDeleteArgs),
}

/// How a place outside is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Type {
    /// An LDAP directory, an Active Directory
    Ldap,
    /// An OpenID provider
    Oidc,
    /// Another Keystone
    Keystone,
}

impl From<Type> for ProviderType {
    fn from(kind: Type) -> Self {
        match kind {
            Type::Ldap => Self::Ldap,
            Type::Oidc => Self::Oidc,
            Type::Keystone => Self::Keystone,
        }
    }
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// Unique on the platform: what `gantry login --idp` takes, and the id for Keystone's clients
    name: String,
    /// What it is
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Type,
    /// The domain whose users its people are
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
    /// How it is reached, as YAML or JSON: what is below spec.config of its object; - for standard input
    #[arg(long, value_name = "FILE")]
    config_file: String,
    #[command(flatten)]
    secret: SecretArgs,
    /// OUTSIDE=GROUP: who is in that group there is in this one here; several are possible [default: groups appear
    /// here under their own names]
    #[arg(long, value_name = "MAPPING")]
    map_group: Vec<String>,
    /// How often its people and groups are compared with what is here
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    sync_interval: u32,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Make it, but let nobody sign in by it yet
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// Name or id
    provider: String,
    /// A new name for `gantry login --idp`; the id stays
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How it is reached from now on, all of it, as for create; - for standard input
    #[arg(long, value_name = "FILE")]
    config_file: Option<String>,
    #[command(flatten)]
    secret: SecretArgs,
    /// OUTSIDE=GROUP, as for create; OUTSIDE= takes a mapping away
    #[arg(long, value_name = "MAPPING")]
    map_group: Vec<String>,
    /// How often its people and groups are compared with what is here
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    sync_interval: Option<u32>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    enabled: EnabledArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct ProviderGetArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct ConfirmArgs {
    /// Name or id
    provider: String,
    /// How many people may lose access at once; 0 for no more than is likely
    users: u32,
}

#[derive(clap::Args, Debug)]
pub struct ProviderDeleteArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
}

pub async fn run(command: IdentityProviderCommand, lookup: &Lookup) -> anyhow::Result<()> {
    match command {
        IdentityProviderCommand::Create(arguments) => create(*arguments, lookup).await,
        IdentityProviderCommand::List(arguments) => {
            let mut all = lookup.all::<IdentityProvider>().await?;
            if let Some(domain) = &arguments.domain {
                let id = lookup.domain_id(Some(domain)).await?;
                all.retain(|provider| provider.spec.domain == id);
            }
            ops::print_list(lookup, all, arguments.output.output).await
        }
        IdentityProviderCommand::Get(arguments) => show::run(&arguments, lookup).await,
        IdentityProviderCommand::Set(arguments) => set(*arguments, lookup).await,
        IdentityProviderCommand::ConfirmDisable(arguments) => confirm(&arguments, lookup).await,
        IdentityProviderCommand::Delete(arguments) => {
            let ProviderDeleteArgs { names, ignore_not_found } = arguments;
            ops::delete::<IdentityProvider>(lookup, &DeleteArgs { names, ignore_not_found }).await
        }
    }
}

async fn create(arguments: CreateArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let mut files = given::Files::default();
    let config = given::config(&arguments.config_file, &files.read(&arguments.config_file)?)?;
    let entries = arguments.secret.entries(&mut files)?;
    let domain = lookup.domain_id(Some(&arguments.domain)).await?;
    let mapping = mapping(&arguments.map_group, &domain, lookup).await?;
    let spec = IdentityProviderSpec {
        name: None,
        provider_type: arguments.kind.into(),
        description: arguments.description,
        enabled: !arguments.disabled,
        sync_interval_seconds: arguments.sync_interval,
        config,
        secret: arguments.secret.named()?.flatten(),
        group_mapping: changed(BTreeMap::new(), mapping),
        domain,
    };
    let new = IdentityProvider::new(&arguments.name, spec);
    if !entries.is_empty() {
        // First the Secret, which the provider is compared with at once; but none for a provider that is refused.
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        lookup.api::<IdentityProvider>().create(&dry, &new).await.map_err(plain)?;
        given::write(lookup.client(), new.spec.secret.as_deref(), &entries).await?;
    }
    let made = lookup.create(&new).await?;
    ops::print_done(lookup, &made, "created", arguments.output.output).await
}

async fn set(arguments: SetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let found = lookup.find::<IdentityProvider>(&arguments.provider).await?;
    let mut files = given::Files::default();
    let config = match &arguments.config_file {
        Some(path) => Some(given::config(path, &files.read(path)?)?),
        None => None,
    };
    let entries = arguments.secret.entries(&mut files)?;
    let secret = arguments.secret.named()?;
    let mapping = mapping(&arguments.map_group, &found.spec.domain, lookup).await?;
    let change = |provider: &mut IdentityProvider| {
        let (before, spec) = (provider.spec.clone(), &mut provider.spec);
        spec.name = arguments.name.clone().or_else(|| before.name.clone());
        spec.config = config.clone().unwrap_or(before.config);
        spec.secret = secret.clone().unwrap_or(before.secret);
        spec.group_mapping = changed(before.group_mapping, mapping.clone());
        spec.sync_interval_seconds = arguments.sync_interval.unwrap_or(before.sync_interval_seconds);
        spec.description = arguments.description.clone().unwrap_or(before.description);
        spec.enabled = arguments.enabled.wanted().unwrap_or(before.enabled);
    };
    let (id, mut new) = (found.name_any(), found.clone());
    change(&mut new);
    let asked = arguments.asks_for_a_change();
    if !asked && entries.is_empty() {
        bail!(NOTHING_TO_SET);
    }
    if !entries.is_empty() {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        lookup.api::<IdentityProvider>().replace(&id, &dry, &new).await.map_err(plain)?;
        given::write(lookup.client(), new.spec.secret.as_deref(), &entries).await?;
    }
    let changed = lookup.update::<IdentityProvider>(&id, |provider| {
        change(provider);
        Ok(asked)
    });
    let changed = changed.await?.unwrap_or(found);
    ops::print_done(lookup, &changed, "changed", arguments.output.output).await
}

impl SetArgs {
    /// Of the object; secrets are no part of it.
    fn asks_for_a_change(&self) -> bool {
        let texts = [&self.name, &self.config_file, &self.secret.secret, &self.description];
        texts.iter().any(|text| text.is_some())
            || !self.map_group.is_empty()
            || self.sync_interval.is_some()
            || self.enabled.wanted().is_some()
    }
}

/// Ids of groups here by the names of groups there.
type Mapping = BTreeMap<String, Vec<String>>;

/// The mappings asked for, with ids for names. A bare name is one of the provider's own domain, as all of its groups.
async fn mapping(texts: &[String], domain: &str, lookup: &Lookup) -> anyhow::Result<Mapping> {
    let mut mapping = Mapping::new();
    if texts.is_empty() {
        return Ok(mapping);
    }
    let all = lookup.all::<Group>().await?;
    for text in texts {
        let (outside, group) = pair(text)?;
        let ids = mapping.entry(outside.to_owned()).or_default();
        if group.is_empty() {
            continue;
        }
        let found = match names::pick(&all, &[Some(domain)], group) {
            Some(found) => found,
            None => lookup.find_among(&all, group).await?,
        };
        ids.push(found.name_any());
    }
    Ok(mapping)
}

/// `OUTSIDE=GROUP`; names of groups elsewhere may have any sign in them.
fn pair(text: &str) -> anyhow::Result<(&str, &str)> {
    let pair = text.rsplit_once('=').filter(|(outside, _)| !outside.is_empty());
    pair.ok_or_else(|| anyhow!("--map-group {text:?} is not OUTSIDE=GROUP"))
}

/// The mapping with the changes: no groups take an entry away.
fn changed(mut mapping: Mapping, changes: Mapping) -> Mapping {
    mapping.extend(changes);
    mapping.retain(|_, groups| !groups.is_empty());
    mapping
}

async fn confirm(arguments: &ConfirmArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let provider = lookup.find::<IdentityProvider>(&arguments.provider).await?;
    let users = (arguments.users > 0).then(|| arguments.users.to_string());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { CONFIRM_DISABLE: users } } }));
    let api = lookup.api::<IdentityProvider>();
    api.patch(&provider.name_any(), &PatchParams::default(), &patch).await.map_err(plain)?;
    let name = provider.called();
    match arguments.users {
        0 => println!("identity provider {name} disables no more people at once than is likely"),
        users => println!("identity provider {name} may disable {users} people at once"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_mapped_by_the_last_sign_of_equality() {
        for (text, want) in [
            ("idp:devs=acme/devs", Some(("idp:devs", "acme/devs"))),
            ("cn=devs,dc=x=acme/devs", Some(("cn=devs,dc=x", "acme/devs"))),
            ("devs=", Some(("devs", ""))),
            ("=devs", None),
            ("devs", None),
        ] {
            assert_eq!(pair(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn a_change_of_the_mapping_is_of_what_it_names() {
        let mapping = |entries: &[(&str, &[&str])]| -> Mapping {
            let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
            entries.iter().map(|(name, groups)| ((*name).to_owned(), ids(groups))).collect()
        };
        let before = mapping(&[("devs", &["1"]), ("ops", &["2"])]);
        for (changes, want) in [
            (mapping(&[]), before.clone()),
            (mapping(&[("devs", &["3", "4"])]), mapping(&[("devs", &["3", "4"]), ("ops", &["2"])])),
            (mapping(&[("ops", &[]), ("new", &["5"])]), mapping(&[("devs", &["1"]), ("new", &["5"])])),
        ] {
            assert_eq!(changed(before.clone(), changes.clone()), want, "{changes:?}");
        }
    }
}
