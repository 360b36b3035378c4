//! `gantry user password`: one's own with the old one, another's as administrator.

use kube::ResourceExt as _;

use crate::commands::identity::lookup::Lookup;
use crate::commands::identity::values;
use crate::keystone::Keystone;
use crate::prompt;

#[derive(clap::Args, Debug)]
pub struct PasswordArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id [default: yourself]
    user: Option<String>,
    /// Standard input has the new password; for your own, the old one in a line before it
    #[arg(long)]
    stdin: bool,
    /// Make up the new password and print it once
    #[arg(long, conflicts_with = "stdin")]
    generate: bool,
}

pub async fn run(arguments: PasswordArgs, lookup: &Lookup, keystone: &Keystone) -> anyhow::Result<()> {
    let (user, is_self) = super::named_or_self(arguments.user.as_deref(), lookup).await?;
    let name = lookup.known().await?.full_name(&user);
    let id = user.name_any();
    let new = if is_self {
        let (old, new) = if arguments.stdin {
            let [old, new] = prompt::secrets_from_stdin(["old password", "new password"])?;
            (old, new)
        } else {
            let old = prompt::secret(&format!("Old password of {name}"))?;
            let generated = arguments.generate.then(values::new_password).transpose()?;
            (old, generated.map_or_else(|| prompt::new_secret("New password"), Ok)?)
        };
        keystone.change_password(&id, &old, &new).await?;
        eprintln!("The password of {name} is changed. Tokens made with the old one are not good any more:");
        eprintln!("sign in again with `gantry login`.");
        new
    } else {
        let new = if arguments.stdin {
            let [new] = prompt::secrets_from_stdin(["new password"])?;
            new
        } else if arguments.generate {
            values::new_password()?
        } else {
            prompt::new_secret(&format!("New password of {name}"))?
        };
        super::set_password(keystone, &id, &new).await?;
        eprintln!("The password of {name} is set.");
        new
    };
    if arguments.generate {
        eprintln!("It is, and is not shown again:");
        println!("{}", new.expose());
    }
    Ok(())
}
