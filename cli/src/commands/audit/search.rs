//! `gantry audit search`

use gantry_audit_api::query::LIMIT_MAX;
use gantry_audit_api::record::Record;
use gantry_audit_api::table::{COLUMNS, row};

use super::{Filter, Output, Trail};

#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// Words that must all occur in a record, in any order
    words: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// The most records to show
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: SearchArgs, trail: &Trail) -> anyhow::Result<()> {
    let mut query = args.filter.query(&args.words, trail).await?;
    let mut found = Vec::new();
    loop {
        query.limit = Some((args.limit - found.len()).clamp(1, LIMIT_MAX));
        let page = trail.page(&query).await?;
        found.extend(page.items);
        if page.metadata.continue_.is_empty() || found.len() >= args.limit {
            break;
        }
        query.continue_ = Some(page.metadata.continue_);
    }
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    if found.is_empty() {
        eprintln!("No records found.");
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(COLUMNS.map(|(title, _)| title.to_uppercase()));
    for item in &found {
        table.add_row(row(&Record::parse(item.get().as_bytes()).unwrap_or_default()));
    }
    println!("{table}");
    Ok(())
}
