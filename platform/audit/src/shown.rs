//! The forms in which records leave: lists, the tables of `kubectl get`, the events of a watch,
//! lines.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gantry_audit_api::record::Record;
use gantry_audit_api::table::{COLUMNS, row};
use gantry_kube_logic::negotiate::{Form, Output};
use gantry_kube_types::StatusError;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WARNING};
use serde_json::{Value, json};

use crate::search::{Hit, Page};

const MORE: &str = "299 - \"these are the newest of more records: narrow them with --field-selector, or read on with \
                    `gantry audit search`\"";

/// As the request's `Accept` has it. Records have no metadata: who wants that alone gets the records.
pub(crate) fn wants_table(headers: &HeaderMap) -> Result<bool, StatusError> {
    Ok(Output::of(headers, false)?.form == Form::Table)
}

/// The answer to a list. A table goes to somebody who reads it, and kubectl would follow `continue` to the trail's very
/// beginning before it shows a line: there it is not given, and a warning says that there are more.
pub(crate) fn list(page: &Page, next_sequence: u64, table: bool) -> Response {
    if !table {
        return typed(event_list(page, next_sequence).into(), "application/json");
    }
    let rows = page.hits.iter().map(table_row).collect();
    let document = table_of(rows, json!({ "resourceVersion": next_sequence.to_string() }));
    let mut response = axum::Json(document).into_response();
    if page.continue_.is_some() {
        response.headers_mut().insert(WARNING, HeaderValue::from_static(MORE));
    }
    response
}

/// Records as they are kept, in a list; nothing is parsed.
fn event_list(page: &Page, next_sequence: u64) -> Vec<u8> {
    let continue_ = page.continue_.map(|sequence| sequence.to_string()).unwrap_or_default();
    let mut body =
        Vec::with_capacity(256 + page.hits.iter().map(|hit| hit.payload.len() + 32).sum::<usize>());
    let head = format!(
        r#"{{"kind":"RecordList","apiVersion":"audit.gantry.dev/v1alpha1","metadata":{{"continue":"{continue_}","resourceVersion":"{next_sequence}"}},"items":["#
    );
    body.extend_from_slice(head.as_bytes());
    for (index, hit) in page.hits.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        append(&mut body, hit.sequence, &hit.payload);
    }
    body.extend_from_slice(b"]}\n");
    body
}

/// What a watch's objects begin with; in a list the items go without.
const TYPED: &[u8] = br#"{"kind":"Record","apiVersion":"audit.gantry.dev/v1alpha1","#;

/// How each record of a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A line of JSON.
    Line,
    /// An event of a watch.
    Added,
    /// An event of a watch with a table of one row.
    AddedRow,
}

impl Piece {
    pub(crate) fn of(self, hit: &Hit) -> Vec<u8> {
        let added = |object: &[u8]| [br#"{"type":"ADDED","object":"#, object, b"}\n"].concat();
        let mut record = Vec::with_capacity(hit.payload.len() + 64);
        match self {
            Self::Line => {
                append(&mut record, hit.sequence, &hit.payload);
                record.push(b'\n');
                record
            }
            Self::Added => {
                append(&mut record, hit.sequence, &hit.payload);
                added(&[TYPED, record.strip_prefix(b"{").unwrap_or_default()].concat())
            }
            Self::AddedRow => {
                let version = json!({ "resourceVersion": (hit.sequence + 1).to_string() });
                added(table_of(vec![table_row(hit)], version).to_string().as_bytes())
            }
        }
    }
}

/// A record with its place in the trail.
fn append(out: &mut Vec<u8>, sequence: u64, payload: &[u8]) {
    match payload.strip_suffix(b"}") {
        Some(open) if open.len() > 1 => {
            out.extend_from_slice(open);
            out.extend_from_slice(format!(",\"sequence\":{sequence}}}").as_bytes());
        }
        _ => out.extend_from_slice(payload),
    }
}

fn table_of(rows: Vec<Value>, metadata: Value) -> Value {
    let column = |(name, about): (&str, &str), priority: u8| json!({ "name": name, "type": "string", "format": "", "description": about, "priority": priority });
    let mut columns: Vec<Value> = COLUMNS.into_iter().map(|shown| column(shown, 0)).collect();
    columns.push(column(("From", "The addresses that the request came from."), 1));
    columns.push(column(("Audit-ID", "Of the request: the `Audit-Id` header of its answer."), 1));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn table_row(hit: &Hit) -> Value {
    let record = Record::parse(&hit.payload).unwrap_or_default();
    let from = record.source_ips.iter().map(|ip| ip.0.as_ref()).collect::<Vec<_>>().join(",");
    let mut cells: Vec<Value> = row(&record).into_iter().map(Value::from).collect();
    cells.extend([Value::from(from), Value::from(&*record.audit_id)]);
    let metadata = json!({ "name": record.audit_id, "creationTimestamp": record.request_received_timestamp });
    let object =
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata });
    json!({ "cells": cells, "object": object })
}

pub(crate) fn typed(body: Body, kind: &'static str) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}
