//! Times as Keystone writes them: with microseconds, with and without the `Z`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2030-01-01T00:00:00.000000Z`, as in tokens and trusts.
pub(crate) fn zulu(at: Timestamp) -> String {
    format!("{}Z", plain(at))
}

/// `2030-01-01T00:00:00.000000`, as in application credentials and users.
pub(crate) fn plain(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// Reads either form, with or without a fraction.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let civil = || text.parse::<jiff::civil::DateTime>().ok().filter(|_| text.contains(['T', ' ']));
    text.parse().ok().or_else(|| civil()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_microseconds_and_read_in_every_form() {
        let at: Timestamp = "2030-01-02T03:04:05.000006Z".parse().expect("a time");
        assert_eq!(zulu(at), "2030-01-02T03:04:05.000006Z");
        assert_eq!(plain(at), "2030-01-02T03:04:05.000006");
        for text in
            ["2030-01-02T03:04:05.000006Z", "2030-01-02T03:04:05.000006", "2030-01-02T05:04:05.000006+02:00"]
        {
            assert_eq!(parse(text), Some(at), "{text}");
        }
        assert!(parse("2030-01-02T03:04:05").is_some());
        for text in ["", "bogus", "2030", "2030-13-01T00:00:00"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
