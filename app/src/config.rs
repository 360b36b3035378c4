//! The operator's settings: one TOML file, read before anything is made.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// `config.toml`. What it does not name has its default; what it names wrong stops the start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    pub identity: gantry_identity::core::Settings,
    pub audit: gantry_audit::Settings,
    pub registry: gantry_registry::Settings,
}

impl ConfigFile {
    /// Reads `chosen`, which must be there, or else `usual`, which may be absent.
    pub fn read(chosen: Option<&Path>, usual: &Path) -> anyhow::Result<Self> {
        let path = chosen.unwrap_or(usual);
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && chosen.is_none() => {
                return Ok(Self::default());
            }
            text => text.with_context(|| path.display().to_string())?,
        };
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let parsed: Result<Self, _> = toml::from_str(text);
        let config = parsed.map_err(|error| match error.span().and_then(|span| text.get(..span.start)) {
            Some(before) => {
                anyhow::anyhow!("line {}: {}", before.matches('\n').count() + 1, error.message())
            }
            None => anyhow::anyhow!("{}", error.message()),
        })?;
        if let Some(problem) = config.audit.problem() {
            bail!("[audit] {problem}");
        }
        if let Some(problem) = config.identity.problem() {
            bail!("[identity] {problem}");
        }
        gantry_identity::password::PasswordPolicy::new(config.identity.security_compliance.clone())
            .context("[identity.security_compliance]")?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide shows every setting with its default.
    #[test]
    fn the_guide_is_true() {
        let guide = include_str!("../../docs/guides/configuration.md");
        let (_, shown) = guide.split_once("```toml\n").expect("an example");
        let (shown, _) = shown.split_once("```").expect("its end");
        // Settings without a default are commented out.
        let all: String = shown.lines().map(|line| format!("{}\n", line.trim_start_matches("#: "))).collect();
        ConfigFile::parse(&all).expect("every line is understood");
        let shown = toml::Value::try_from(ConfigFile::parse(shown).expect("understood")).expect("TOML");
        let defaults = toml::Value::try_from(ConfigFile::default()).expect("TOML");
        assert_eq!(shown, defaults);
        let named: toml::Table = toml::from_str(guide_table(guide)).expect("TOML");
        for (section, fields) in defaults.as_table().expect("a table") {
            for field in fields.as_table().expect("a table").keys() {
                assert!(named[section].get(field).is_some(), "{section}.{field} is not in the guide");
            }
        }
    }

    fn guide_table(guide: &str) -> &str {
        guide.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).expect("an example").0
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        for (text, wanted) in [
            ("[identity]\nnot_there = 1\n", "line 2: unknown field `not_there`"),
            ("[audit]\n\nwhen_full = \"skip\"\n", "line 3: unknown variant `skip`"),
            (
                "[audit]\nsync_interval_ms = 5000\n",
                "[audit] sync_interval_ms is 5000; 1 to 1000 are possible",
            ),
            (
                "[identity.security_compliance]\npassword_regex = \"(\"\n",
                "[identity.security_compliance]: password_regex \"(\" is not understood",
            ),
            (
                "[identity]\nexternal_url = \"https://cloud.example.org/keystone\"\n",
                "[identity] external_url is \"https://cloud.example.org/keystone\"; it is https:// and a host",
            ),
            ("[audit\n", "line 1: "),
        ] {
            let error = format!("{:#}", ConfigFile::parse(text).expect_err(text));
            assert!(error.starts_with(wanted) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_chosen_file_must_be_there_and_the_usual_one_may_be() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("config.toml");
        assert!(ConfigFile::read(None, &path).is_ok());
        assert!(ConfigFile::read(Some(&path), &path).is_err());
    }
}
