//! `gantry login`: a token for this user, and a kubeconfig that knows how to show it.

mod oidc;
mod server;

use anyhow::{Context as _, bail};
use gantry_base::secret::Secret;
use gantry_base::settings::environment;
use jiff::Timestamp;

use super::names::Name;
use super::render::{fields, span};
use crate::ClientFlags;
use crate::credentials::{ApplicationSecret, Cached, TokenCache};
use crate::keystone::{Keystone, KeystoneError, Proof, Scope, Signed, UserName, http_client};
use crate::kubeconfig::{self, Entry};
use crate::prompt;

/// Rounds of a sign-in that asks for one thing after the other.
const ROUNDS_MAX: usize = 4;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
The token is kept in ~/.config/gantry/tokens (GANTRY_TOKEN_DIR) until it ends or `gantry logout` revokes it.

Examples:
  gantry login 10.0.0.5 -u acme/alice
  gantry login 10.0.0.5 -u acme/alice --project web --trust-fingerprint 3A:0F:…
  pass show acme/bob | gantry login https://gantry.example.com -u acme/bob --password-stdin
  gantry login gantry.example.com --idp corporate
  gantry login 10.0.0.5 --application-credential-id 4f2a… --secret-stdin --keep-secret < secret")]
pub struct LoginArgs {
    /// HOST, HOST:PORT or https://… [default: the server of the current context]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// DOMAIN/NAME; a name alone is one of the default domain
    #[arg(short, long, value_name = "USER")]
    user: Option<Name>,
    /// The user's domain, where the name has a '/' in it or stands alone
    #[arg(long, value_name = "DOMAIN")]
    user_domain: Option<String>,
    /// The first line of standard input is the password
    #[arg(long)]
    password_stdin: bool,
    /// Set a new password, the old one ended or not; with --password-stdin it is the second line
    #[arg(long)]
    change_password: bool,
    /// The code an authenticator app shows
    #[arg(long, value_name = "CODE")]
    totp: Option<String>,
    /// Sign in as a program: the credential's id
    #[arg(long, value_name = "ID", conflicts_with_all = ["password_stdin", "totp", "idp", "user"], requires = "secret_stdin")]
    application_credential_id: Option<String>,
    /// Sign in as a program: the credential's name, with --user
    #[arg(long, value_name = "NAME", conflicts_with_all = ["application_credential_id", "password_stdin", "totp", "idp"], requires_all = ["secret_stdin", "user"])]
    application_credential_name: Option<String>,
    /// The first line of standard input is the application credential's secret
    #[arg(long, conflicts_with = "password_stdin")]
    secret_stdin: bool,
    /// Keep the secret beside the token, to sign in again when the token ends
    #[arg(long, requires = "application_credential_id")]
    keep_secret: bool,
    /// Sign in at an identity provider (OpenID Connect), in a browser
    #[arg(long, value_name = "PROVIDER", conflicts_with_all = ["user", "password_stdin", "totp"])]
    idp: Option<String>,
    /// The browser is on another machine: show a code to type there
    #[arg(long, requires = "idp")]
    device: bool,
    /// Do not open a browser, only print the address
    #[arg(long, requires = "idp")]
    no_browser: bool,
    /// A token for one project alone
    #[arg(long, value_name = "PROJECT", group = "scope")]
    project: Option<Name>,
    /// The project's domain [default: the user's]
    #[arg(long, value_name = "DOMAIN", requires = "project")]
    project_domain: Option<String>,
    /// A token for one domain alone
    #[arg(long, value_name = "DOMAIN", group = "scope")]
    domain: Option<String>,
    /// A token for the platform itself
    #[arg(long, group = "scope")]
    system: bool,
    /// The server's certificate authority
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// Trust the server that shows a certificate or an authority with this SHA-256
    #[arg(long, value_name = "SHA256", conflicts_with = "ca")]
    trust_fingerprint: Option<String>,
}

pub async fn run(arguments: LoginArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let file = kubeconfig::path_to_write(flags.kubeconfig.as_deref())?;
    let (server, authority) = server::trusted(&arguments, flags, &file).await?;
    let keystone = Keystone::new(http_client(authority.as_deref())?, &server);
    let mut kept_secret = None;
    let signed = if let Some(provider) = &arguments.idp {
        by_provider(&arguments, provider, &keystone).await?
    } else if arguments.secret_stdin {
        let (signed, secret) = by_application_credential(&arguments, &keystone).await?;
        kept_secret = secret;
        signed
    } else {
        by_password(&arguments, &keystone).await?
    };
    let context = flags.context.clone().unwrap_or_else(|| context_name(&signed, &server));
    let summary = summary(&signed, &server, &context, Timestamp::now());
    let mut cached = Cached::new(&server, authority.clone(), signed);
    cached.application_credential = kept_secret;
    TokenCache::of_user()?.write(&context, &cached)?;
    let entry = Entry {
        cluster: server.trim_start_matches("https://").to_owned(),
        context,
        server,
        certificate_authority: authority,
        program: std::env::current_exe().context("this program does not know where it is")?,
        token_directory: environment("GANTRY_TOKEN_DIR"),
    };
    kubeconfig::write(&file, &entry)?;
    println!("{summary}");
    eprintln!("The context is the current one of {}.", file.display());
    // The commands look for the instance on this machine first, as its administrator wants it.
    if crate::context::find(&ClientFlags { kubeconfig: flags.kubeconfig.clone(), context: None })
        .is_ok_and(|found| found != file)
    {
        eprintln!("To have gantry use it too: export KUBECONFIG={}", file.display());
    }
    Ok(())
}

/// `acme/alice@10.0.0.5:6443`; a program's has the credential's name, so that it takes no person's place.
fn context_name(signed: &Signed, server: &str) -> String {
    let host = server.trim_start_matches("https://");
    let user = signed.body.user.full_name();
    match &signed.body.application_credential {
        Some(credential) => format!("{user}+{}@{host}", credential.name),
        None => format!("{user}@{host}"),
    }
}

fn summary(signed: &Signed, server: &str, context: &str, now: Timestamp) -> String {
    let body = &signed.body;
    let mut rows = vec![
        ("Signed in as", body.user.full_name()),
        ("Server", server.to_owned()),
        ("Scope", body.scope_words()),
    ];
    if !body.roles.is_empty() {
        rows.push(("Roles", body.roles.iter().map(|role| role.full_name()).collect::<Vec<_>>().join(", ")));
    }
    let left = span((body.expires_at.as_second() - now.as_second()).max(0));
    rows.push(("Until", format!("{} ({left})", body.expires_at)));
    rows.push(("Context", context.to_owned()));
    fields(&rows)
}

/// The scope that was asked for; a bare project is one of the user's domain.
fn scope(arguments: &LoginArgs, user_domain: Option<&str>) -> Scope {
    if let Some(project) = &arguments.project {
        let domain = arguments.project_domain.clone().or_else(|| project.domain.clone());
        let domain = domain.or_else(|| user_domain.map(str::to_owned));
        return Scope::Project { name: project.name.clone(), domain };
    }
    match &arguments.domain {
        Some(domain) => Scope::Domain(domain.clone()),
        None if arguments.system => Scope::System,
        // Not the user's default project, which Keystone's clients get: kubectl is for everything one may.
        None => Scope::Unscoped,
    }
}

fn user(arguments: &LoginArgs) -> anyhow::Result<UserName> {
    let name = match &arguments.user {
        Some(name) => name.clone(),
        None if prompt::interactive() => prompt::line("User (DOMAIN/NAME)")?.parse()?,
        None => bail!("say who signs in: --user DOMAIN/NAME"),
    };
    Ok(match &arguments.user_domain {
        Some(domain) => UserName { domain: Some(domain.clone()), name: name.to_string() },
        None => UserName { domain: name.domain, name: name.name },
    })
}

async fn by_password(arguments: &LoginArgs, keystone: &Keystone) -> anyhow::Result<Signed> {
    let user = user(arguments)?;
    let (mut password, new) = passwords(arguments, &user)?;
    if let Some(new) = new {
        let id = id_by_password(&user, &password, keystone).await?;
        password = changed(&id, &password, new, keystone).await?;
    }
    let scope = scope(arguments, user.domain.as_deref());
    let mut proofs = vec![Proof::Password { user: user.clone(), password: password.clone() }];
    if let Some(code) = &arguments.totp {
        proofs.push(Proof::Totp { user: user.clone(), code: code.clone() });
    }
    let mut receipt: Option<Secret<String>> = None;
    for _ in 0..ROUNDS_MAX {
        let error = match keystone.sign_in(&proofs, &scope, receipt.as_ref()).await {
            Ok(signed) => return Ok(signed),
            Err(error) => error,
        };
        if let KeystoneError::MoreNeeded { receipt: got, done, rules, .. } = error {
            proofs = vec![more(arguments, &user, &done, &rules, &password)?];
            receipt = Some(got);
            continue;
        }
        let Some(id) = error.expired_password_of().map(str::to_owned) else {
            return Err(sign_in_error(error, &user.to_string()));
        };
        if arguments.password_stdin || !prompt::interactive() {
            bail!(
                "the password of {user} has to be changed first: sign in again with --change-password, \
                 with the new one in a second line; later `gantry user password` does it"
            );
        }
        eprintln!("The password of {user} has to be changed first.");
        password = changed(&id, &password, prompt::new_secret("New password")?, keystone).await?;
        proofs[0] = Proof::Password { user: user.clone(), password: password.clone() };
        receipt = None;
    }
    bail!("the server asks for ever more: sign in again")
}

/// The password, and the one to set in its place where that was asked for.
fn passwords(
    arguments: &LoginArgs,
    user: &UserName,
) -> anyhow::Result<(Secret<String>, Option<Secret<String>>)> {
    if arguments.password_stdin && arguments.change_password {
        let [old, new] = prompt::secrets_from_stdin(["password", "new password"])?;
        return Ok((old, Some(new)));
    }
    if arguments.password_stdin {
        let [password] = prompt::secrets_from_stdin(["password"])?;
        return Ok((password, None));
    }
    let password = prompt::secret(&format!("Password of {user}"))?;
    let new = arguments.change_password.then(|| prompt::new_secret("New password")).transpose()?;
    Ok((password, new))
}

/// Id of the user whose password it is. The password alone is shown: a code of an authenticator app is good once and
/// is needed when it has been changed.
async fn id_by_password(
    user: &UserName,
    password: &Secret<String>,
    keystone: &Keystone,
) -> anyhow::Result<String> {
    let proof = Proof::Password { user: user.clone(), password: password.clone() };
    match keystone.sign_in(&[proof], &Scope::Unscoped, None).await {
        Ok(signed) => Ok(signed.body.user.id),
        Err(KeystoneError::MoreNeeded { user, .. }) => Ok(user),
        Err(error) => match error.expired_password_of() {
            Some(id) => Ok(id.to_owned()),
            None => Err(sign_in_error(error, &user.to_string())),
        },
    }
}

/// Sets the new password and returns it.
async fn changed(
    id: &str,
    password: &Secret<String>,
    new: Secret<String>,
    keystone: &Keystone,
) -> anyhow::Result<Secret<String>> {
    keystone.change_password(id, password, &new).await.context("the new password was not taken")?;
    Ok(new)
}

/// What the server asks for beside what it has, if we can give it.
fn more(
    arguments: &LoginArgs,
    user: &UserName,
    done: &[String],
    rules: &[Vec<String>],
    password: &Secret<String>,
) -> anyhow::Result<Proof> {
    match next_method(done, rules) {
        Some("totp") if prompt::interactive() && !arguments.password_stdin => {
            let code = prompt::line(&format!("Code of {user}'s authenticator app"))?;
            Ok(Proof::Totp { user: user.clone(), code })
        }
        Some("totp") => bail!("{user} needs a code as well: add --totp CODE"),
        Some(_) => Ok(Proof::Password { user: user.clone(), password: password.clone() }),
        None => {
            let rules: Vec<String> = rules.iter().map(|rule| rule.join(" and ")).collect();
            bail!("{user} has to sign in by {}, which `gantry login` cannot", rules.join(", or by "))
        }
    }
}

/// The method to show next: of the rule that lacks least, where all it lacks can be shown here.
fn next_method(done: &[String], rules: &[Vec<String>]) -> Option<&'static str> {
    const OURS: [&str; 2] = ["password", "totp"];
    let lacking = |rule: &Vec<String>| -> Vec<String> {
        rule.iter().filter(|method| !done.contains(method)).cloned().collect()
    };
    let possible = rules.iter().map(lacking).filter(|lacks| lacks.iter().all(|m| OURS.contains(&m.as_str())));
    let least = possible.filter(|lacks| !lacks.is_empty()).min_by_key(Vec::len)?;
    OURS.into_iter().find(|ours| least.iter().any(|method| method == ours))
}

fn sign_in_error(error: KeystoneError, who: &str) -> anyhow::Error {
    match error.code() {
        // Which of these it is, the server tells nobody.
        Some(401) => anyhow::anyhow!(
            "{who} is not signed in: the name, the password or the code is wrong, or the account is disabled, \
             locked or has no role in the scope"
        ),
        _ => anyhow::Error::from(error).context(format!("{who} is not signed in")),
    }
}

async fn by_application_credential(
    arguments: &LoginArgs,
    keystone: &Keystone,
) -> anyhow::Result<(Signed, Option<ApplicationSecret>)> {
    if scope(arguments, None) != Scope::Unscoped {
        bail!(
            "an application credential has a scope of its own: leave --project, --domain and --system away"
        );
    }
    let [secret] = prompt::secrets_from_stdin(["secret"])?;
    let (proof, kept, who) =
        match (&arguments.application_credential_id, &arguments.application_credential_name) {
            (Some(id), _) => {
                let kept = ApplicationSecret { id: id.clone(), secret: secret.clone() };
                (Proof::ApplicationCredential { id: id.clone(), secret }, Some(kept), id.clone())
            }
            (None, Some(name)) => {
                let user = user(arguments)?;
                let who = format!("{name} of {user}");
                (Proof::NamedApplicationCredential { user, name: name.clone(), secret }, None, who)
            }
            (None, None) => bail!("say whose secret it is: --application-credential-id ID"),
        };
    let signed = keystone.sign_in(&[proof], &Scope::Default, None).await;
    let signed = signed.map_err(|error| match error.code() {
        Some(401) => {
            anyhow::anyhow!("the application credential {who} or its secret is wrong, or it has ended")
        }
        _ => error.into(),
    })?;
    Ok((signed, kept.filter(|_| arguments.keep_secret)))
}

async fn by_provider(arguments: &LoginArgs, provider: &str, keystone: &Keystone) -> anyhow::Result<Signed> {
    let flow = if arguments.device {
        oidc::Flow::Device
    } else {
        oidc::Flow::Browser { open: !arguments.no_browser }
    };
    let signed = oidc::sign_in(provider, flow, keystone).await?;
    let domain = signed.body.user.domain.as_ref().map(|domain| domain.name.clone());
    match scope(arguments, domain.as_deref()) {
        Scope::Unscoped => Ok(signed),
        scope => {
            let who = signed.body.user.full_name();
            let scoped = keystone.sign_in(&[Proof::Token(signed.token)], &scope, None).await;
            scoped.map_err(|error| sign_in_error(error, &who))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        login: LoginArgs,
    }

    fn parsed(words: &[&str]) -> Option<LoginArgs> {
        Cli::try_parse_from(["login"].iter().chain(words)).ok().map(|cli| cli.login)
    }

    #[test]
    fn scopes_are_found() {
        let project = |name: &str, domain: &str| Scope::Project {
            name: name.to_owned(),
            domain: Some(domain.to_owned()),
        };
        for (words, want) in [
            (&["-u", "acme/alice"][..], Scope::Unscoped),
            (&["--project", "web"], project("web", "acme")),
            (&["--project", "other/web"], project("web", "other")),
            (&["--project", "web", "--project-domain", "third"], project("web", "third")),
            (&["--domain", "acme"], Scope::Domain("acme".to_owned())),
            (&["--system"], Scope::System),
        ] {
            let arguments = parsed(words).unwrap_or_else(|| panic!("{words:?} is not taken"));
            assert_eq!(scope(&arguments, Some("acme")), want, "{words:?}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["--system", "--project", "web"][..],
            &["--application-credential-id", "1"],
            &["--application-credential-name", "ci", "--secret-stdin"],
            &["--idp", "x", "-u", "acme/alice"],
            &["--device"],
            &["--ca", "f", "--trust-fingerprint", "AB"],
            &["--keep-secret"],
            &["-u", "a/b/c"],
        ] {
            assert!(parsed(words).is_none(), "{words:?} was taken");
        }
        assert!(
            parsed(&["--application-credential-name", "ci", "--secret-stdin", "-u", "acme/alice"]).is_some()
        );
    }

    #[test]
    fn users_have_a_domain_or_the_default_one() {
        for (words, want) in [
            (&["-u", "acme/alice"][..], "acme/alice"),
            (&["-u", "alice"], "default/alice"),
            (&["-u", "alice", "--user-domain", "acme"], "acme/alice"),
            (&["-u", "a/b", "--user-domain", "acme"], "acme/a/b"),
        ] {
            let arguments = parsed(words).expect("taken");
            assert_eq!(user(&arguments).expect("a user").to_string(), want);
        }
    }

    #[test]
    fn the_rule_that_lacks_least_goes_on() {
        let words = |texts: &[&str]| -> Vec<String> { texts.iter().map(|t| (*t).to_owned()).collect() };
        let rules = |all: &[&[&str]]| -> Vec<Vec<String>> { all.iter().map(|rule| words(rule)).collect() };
        for (done, all, want) in [
            (&["password"][..], &[&["password", "totp"][..]][..], Some("totp")),
            (&["totp"], &[&["password", "totp"]], Some("password")),
            (&["password"], &[&["password", "oidc"], &["password", "totp"]], Some("totp")),
            (&["password"], &[&["password", "oidc"]], None),
            (&["password"], &[&["password"]], None),
            (&["password"], &[], None),
        ] {
            assert_eq!(next_method(&words(done), &rules(all)), want, "{done:?} {all:?}");
        }
    }

    #[test]
    fn a_sign_in_is_summed_up() {
        let body = serde_json::from_str(
            r#"{"user":{"id":"4f2a","name":"alice","domain":{"id":"a","name":"acme"}},
            "project":{"id":"p","name":"web","domain":{"id":"a","name":"acme"}},"roles":[{"id":"m","name":"member"}],
            "issued_at":"2026-01-01T00:00:00.000000Z","expires_at":"2026-01-01T08:00:00.000000Z"}"#,
        )
        .expect("a token");
        let signed = Signed { token: Secret::new("t".to_owned()), body };
        let context = context_name(&signed, "https://10.0.0.5:6443");
        let now = "2026-01-01T00:00:01Z".parse().expect("a time");
        insta::assert_snapshot!(summary(&signed, "https://10.0.0.5:6443", &context, now), @r"
        Signed in as:  acme/alice
        Server:        https://10.0.0.5:6443
        Scope:         project acme/web
        Roles:         member
        Until:         2026-01-01T08:00:00Z (7h59m)
        Context:       acme/alice@10.0.0.5:6443
        ");
    }
}
