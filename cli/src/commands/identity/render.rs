//! How objects and lists are printed: as kubectl prints them.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::kinds::{Kind, Known};

/// The formats of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    Json,
    Yaml,
    /// KIND/ID, as kubectl takes it
    Name,
}

/// The flag, for every command that prints objects.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, hide_default_value = true, value_name = "FORMAT")]
    pub output: Output,
}

/// A table with kubectl's spacing, without a blank at the end of any line.
pub fn table(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    // Lines are not folded: whoever cuts columns with awk must find one object on one line.
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(headers.iter().map(|header| (*header).to_owned()));
    for row in rows {
        // A name may hold what a terminal obeys.
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt()
}

fn plain(text: &str) -> String {
    let shown = if text.is_empty() { "<none>" } else { text };
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `LABEL:  text`, one per line, as `kubectl describe` does.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count() + 1).max().unwrap_or(0);
    let mut text = String::new();
    for (label, value) in rows {
        let mut lines = value.lines();
        let first = plain(lines.next().unwrap_or_default());
        text.push_str(&format!("{:width$}  {first}\n", format!("{label}:")));
        for line in lines {
            text.push_str(&format!("{:width$}  {}\n", "", plain(line)));
        }
    }
    text.pop();
    text
}

/// `JSON` or `YAML` of anything; `None` for the formats that are not a matter of the value alone.
pub fn structured(value: &impl Serialize, output: Output) -> anyhow::Result<Option<String>> {
    Ok(match output {
        Output::Json => Some(serde_json::to_string_pretty(value)?),
        Output::Yaml => Some(serde_saphyr::to_string(value)?.trim_end().to_owned()),
        Output::Table | Output::Wide | Output::Name => None,
    })
}

/// One object.
pub fn object<K: Kind>(object: &K, known: &Known, output: Output, now: Timestamp) -> anyhow::Result<String> {
    if let Some(text) = structured(&typed(object)?, output)? {
        return Ok(text);
    }
    Ok(match output {
        Output::Name => format!("{}/{}", K::resource_word(), object.name_any()),
        _ => rows(&[object], known, output, now),
    })
}

/// A list.
pub fn list<K: Kind>(objects: &[K], known: &Known, output: Output, now: Timestamp) -> anyhow::Result<String> {
    let items = objects.iter().map(typed).collect::<anyhow::Result<Vec<_>>>()?;
    let all = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
    if let Some(text) = structured(&all, output)? {
        return Ok(text);
    }
    Ok(match output {
        Output::Name => {
            let names = objects.iter().map(|o| format!("{}/{}", K::resource_word(), o.name_any()));
            names.collect::<Vec<_>>().join("\n")
        }
        _ if objects.is_empty() => String::new(),
        _ => rows(&objects.iter().collect::<Vec<_>>(), known, output, now),
    })
}

fn rows<K: Kind>(objects: &[&K], known: &Known, output: Output, now: Timestamp) -> String {
    let wide = output == Output::Wide;
    let mut headers = vec!["NAME"];
    headers.extend(K::headers(wide));
    headers.push("AGE");
    if wide {
        headers.push("ID");
    }
    let row = |object: &&K| {
        let mut cells = vec![known.full_name(*object)];
        cells.extend(object.cells(known, wide));
        cells.push(object.creation_timestamp().map(|at| age(at.0, now)).unwrap_or_default());
        if wide {
            cells.push(object.name_any());
        }
        cells
    };
    table(&headers, objects.iter().map(row).collect())
}

/// The object with its version and kind, which lists leave out.
fn typed<K: Kind>(object: &K) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), K::api_version(&()).into());
        map.insert("kind".to_owned(), K::kind(&()).into());
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    Ok(value)
}

/// `5d3h`, as kubectl shows an age.
pub fn age(from: Timestamp, now: Timestamp) -> String {
    span((now.as_second() - from.as_second()).max(0))
}

/// Two units at most, and one where the second says little.
pub fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        172_800..63_072_000 => format!("{days}d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (150, "2m30s"),
            (180, "3m"),
            (3_600, "60m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (176_400, "2d1h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(span(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn tables_have_no_blanks_at_the_end_and_obey_nobody() {
        let rows = vec![
            vec!["acme/alice".to_owned(), String::new()],
            vec!["公司/小明".to_owned(), "\u{1b}[31mred".to_owned()],
        ];
        insta::assert_snapshot!(table(&["NAME", "GROUPS"], rows), @r"
        NAME         GROUPS
        acme/alice   <none>
        公司/小明    �[31mred
        ");
    }

    #[test]
    fn fields_stand_below_each_other() {
        let rows = [("User", "acme/alice".to_owned()), ("Groups", "acme/devs\nacme/ops".to_owned())];
        insta::assert_snapshot!(fields(&rows), @r"
        User:    acme/alice
        Groups:  acme/devs
                 acme/ops
        ");
    }
}
