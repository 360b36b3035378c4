//! Records as rows, for the command line and for `kubectl get`.

use crate::record::Record;

/// Title and meaning of the columns.
pub const COLUMNS: [(&str, &str); 8] = [
    ("Time", "When the request came."),
    ("User", "Who asked, and as whom."),
    ("Verb", "What was asked."),
    ("Object", "The resource with its subresource and group, or the path."),
    ("Namespace", "Where the object is."),
    ("Name", "Of the object."),
    ("Outcome", "success, denied, failed or error, with the status code."),
    ("Event", "The kind of security event that it was."),
];

/// One record.
pub fn row(record: &Record<'_>) -> [String; 8] {
    let user = match &record.impersonated_user {
        Some(as_whom) => format!("{} as {}", record.user.username, as_whom.username),
        None => record.user.username.to_string(),
    };
    let seconds = record.request_received_timestamp.split('.').next().unwrap_or_default();
    let ended = record.response_status.code;
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    [
        format!("{}Z", seconds.trim_end_matches('Z')),
        dash(&user),
        dash(&record.verb),
        dash(&record.target()),
        dash(&record.object_ref.namespace),
        dash(&record.object_ref.name),
        format!("{} {ended}", record.outcome().name()),
        dash(record.event()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_deed() {
        let record = Record::parse(
            br#"{"verb":"create","user":{"username":"acme/alice"},"objectRef":{"resource":"pods","subresource":"exec","namespace":"acme-dev","name":"web"},"responseStatus":{"code":101},"requestReceivedTimestamp":"2026-11-25T10:00:00.123456Z","annotations":{"audit.gantry.dev/event":"exec-opened"}}"#,
        )
        .expect("a record");
        assert_eq!(
            row(&record).join("|"),
            "2026-11-25T10:00:00Z|acme/alice|create|pods/exec|acme-dev|web|success 101|exec-opened"
        );
    }
}
