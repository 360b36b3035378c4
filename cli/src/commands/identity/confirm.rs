//! "Type its name": for what cannot be undone.

use anyhow::bail;

use crate::prompt;

/// Goes on when the name was given by a flag or is typed now.
pub fn by_name(word: &str, name: &str, given: Option<&str>) -> anyhow::Result<()> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None if prompt::interactive() => {
            prompt::line(&format!("This cannot be undone. Type {name} to go on"))?
        }
        None => bail!("nothing was deleted: confirm with --confirm {name}"),
    };
    if typed != name {
        bail!("nothing was deleted: {typed:?} is not the {word}'s name, {name}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_full_name_confirms() {
        assert!(by_name("project", "acme/web", Some("acme/web")).is_ok());
        for wrong in ["web", "acme/Web", "", "yes"] {
            let error = by_name("project", "acme/web", Some(wrong)).expect_err("refused").to_string();
            assert!(error.starts_with("nothing was deleted"), "{error}");
        }
    }
}
