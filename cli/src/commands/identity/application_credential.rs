//! `gantry application-credential …`: rights of a user for a program (robot accounts).

use anyhow::{anyhow, bail};
use gantry_base::secret::Secret;
use gantry_identity_api::{ApplicationCredential, Project, extra};
use http::Method;
use jiff::Zoned;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::lookup::Lookup;
use super::ops;
use super::render::{self, Output, OutputArgs};
use super::values;
use crate::keystone::{Proof, Scope};
use crate::{Context, prompt};

/// Credentials with which programs act for you in one project
#[derive(clap::Subcommand, Debug)]
pub enum ApplicationCredentialCommand {
    /// Make a credential; its secret is shown once
    #[command(after_help = "\
Examples:
  gantry application-credential create ci --project acme/web --role member --expires 90d
  gantry application-credential create ci --project acme/web -o json | jq -r .secret

The program signs in with
  gantry login SERVER --application-credential-id ID --secret-stdin")]
    Create(CreateArgs),
    /// List credentials
    #[command(visible_alias = "ls")]
    List(CredentialListArgs),
    /// Delete credentials; tokens made with them are not good any more
    Delete(CredentialDeleteArgs),
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// Unique among yours
    name: String,
    /// The project it is good for
    #[arg(long, value_name = "PROJECT")]
    project: String,
    /// A role it has; several are possible [default: all you have in the project]
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// When it ends: 90d, 12h or 2027-01-31T00:00:00Z [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Let it make further credentials and trusts
    #[arg(long)]
    unrestricted: bool,
    /// The first line of standard input is the secret [default: one is made up]
    #[arg(long)]
    secret_stdin: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct CredentialListArgs {
    /// Another user's, or `all` that you see [default: yours]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct CredentialDeleteArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Another user's [default: yours]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

pub async fn run(command: ApplicationCredentialCommand, context: &Context) -> anyhow::Result<()> {
    let lookup = &Lookup::new(context.kube()?);
    match command {
        ApplicationCredentialCommand::Create(arguments) => create(arguments, lookup, context).await,
        ApplicationCredentialCommand::List(arguments) => {
            let own = of_user(lookup, arguments.user.as_deref()).await?;
            ops::print_list(lookup, own, arguments.output.output).await
        }
        ApplicationCredentialCommand::Delete(arguments) => delete(&arguments, lookup).await,
    }
}

async fn of_user(lookup: &Lookup, user: Option<&str>) -> anyhow::Result<Vec<ApplicationCredential>> {
    let mut all = lookup.all::<ApplicationCredential>().await?;
    let id = match user {
        Some("all") => return Ok(all),
        Some(name) => lookup.find::<gantry_identity_api::User>(name).await?.name_any(),
        // Who is no user has none, and is asking for everybody's.
        None => match lookup.caller_extra(extra::USER_ID).await? {
            Some(id) => id,
            None => return Ok(all),
        },
    };
    all.retain(|credential| credential.spec.user == id);
    Ok(all)
}

async fn create(arguments: CreateArgs, lookup: &Lookup, context: &Context) -> anyhow::Result<()> {
    let user = lookup.caller_extra(extra::USER_ID).await?;
    let (Some(user), Some(token)) = (user, context.token()?) else {
        bail!("a credential is a user's own: sign in with `gantry login` first");
    };
    let project = lookup.find::<Project>(&arguments.project).await?;
    let mut body = json!({
        "name": arguments.name,
        "description": arguments.description,
        "unrestricted": arguments.unrestricted,
    });
    if !arguments.role.is_empty() {
        let all = lookup.all::<gantry_identity_api::Role>().await?;
        let mut roles = Vec::with_capacity(arguments.role.len());
        for name in &arguments.role {
            roles.push(json!({ "id": lookup.find_among(&all, name).await?.name_any() }));
        }
        body["roles"] = roles.into();
    }
    if let Some(expires) = &arguments.expires {
        // Keystone's form: no zone, which means UTC.
        let moment = values::moment(expires, &Zoned::now())?;
        body["expires_at"] = moment.strftime("%Y-%m-%dT%H:%M:%S").to_string().into();
    }
    if arguments.secret_stdin {
        let [secret] = prompt::secrets_from_stdin(["secret"])?;
        body["secret"] = secret.expose().as_str().into();
    }
    // The credential is good where the token is that makes it.
    let keystone = context.keystone()?;
    let scope = Scope::Kept(json!({ "project": { "id": project.name_any() } }));
    let scoped = keystone.sign_in(&[Proof::Token(Secret::new(token))], &scope, None).await?;
    let path = format!("/users/{}/application_credentials", values::escaped(&user));
    let body = json!({ "application_credential": body });
    let made = context.keystone_as(scoped.token)?.call(Method::POST, &path, Some(&body)).await?;
    print_made(&made["application_credential"], arguments.output.output)
}

fn print_made(made: &Value, output: Output) -> anyhow::Result<()> {
    if let Some(text) = render::structured(made, output)? {
        println!("{text}");
        return Ok(());
    }
    let text = |field: &str| made[field].as_str().unwrap_or_default().to_owned();
    if output == Output::Name {
        println!("applicationcredential.identity.gantry.dev/{}", text("id"));
        return Ok(());
    }
    let roles = made["roles"].as_array().into_iter().flatten().filter_map(|role| role["name"].as_str());
    let expires = made["expires_at"].as_str().unwrap_or("never").to_owned();
    let rows = [
        ("Name", text("name")),
        ("Id", text("id")),
        ("Secret", text("secret")),
        ("Roles", roles.collect::<Vec<_>>().join(", ")),
        ("Expires", expires),
    ];
    println!("{}", render::fields(&rows));
    eprintln!("The secret is not shown again.");
    Ok(())
}

async fn delete(arguments: &CredentialDeleteArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let own = of_user(lookup, arguments.user.as_deref()).await?;
    for name in &arguments.names {
        let named: Vec<&ApplicationCredential> = own.iter().filter(|c| &c.spec.name == name).collect();
        let found = match named.as_slice() {
            [one] => Some(*one),
            [] => own.iter().find(|credential| &credential.name_any() == name),
            _ => bail!("several users have a credential {name:?}: say whose with --user, or give the id"),
        };
        let found = found.ok_or_else(|| anyhow!("there is no application credential {name:?}"))?;
        ops::delete_one(lookup, found).await?;
        println!("application credential {name} deleted");
    }
    Ok(())
}
