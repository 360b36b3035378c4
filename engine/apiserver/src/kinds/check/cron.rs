//! The five fields of a cron schedule, and what is wrong with one.

struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: &MONTHS },
    Field { min: 0, max: 6, names: &DAYS },
];

/// Why the text is no schedule; `None` where it is one.
pub(super) fn problem(schedule: &str) -> Option<String> {
    if let Some(word) = schedule.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        if known.contains(&word) {
            return None;
        }
        return match word.strip_prefix("every ") {
            Some(span) => span
                .parse::<jiff::SignedDuration>()
                .err()
                .map(|_| format!("failed to parse duration {schedule}: time: invalid duration \"{span}\"")),
            None => Some(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let listed = fields.join(" ");
        return Some(format!("expected exactly 5 fields, found {}: [{listed}]", fields.len()));
    }
    fields
        .iter()
        .zip(&FIELDS)
        .find_map(|(text, field)| text.split(',').find_map(|part| check_part(part, field).err()))
}

fn check_part(part: &str, field: &Field) -> Result<(), String> {
    let (span, step) = match part.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {part}")),
        Some((span, step)) => (span, Some(step)),
        None => (part, None),
    };
    let (start, end) = match span {
        "*" | "?" => (field.min, field.max),
        _ => match span.split_once('-') {
            Some((_, end)) if end.contains('-') => return Err(format!("too many hyphens: {part}")),
            Some((start, end)) => (number(start, field)?, number(end, field)?),
            None => {
                let start = number(span, field)?;
                (start, if step.is_some() { field.max } else { start })
            }
        },
    };
    let step = step.map_or(Ok(1), |step| number(step, &Field { names: &[], ..*field }))?;
    if start < field.min {
        Err(format!("beginning of range ({start}) below minimum ({}): {part}", field.min))
    } else if end > field.max {
        Err(format!("end of range ({end}) above maximum ({}): {part}", field.max))
    } else if start > end {
        Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"))
    } else if step == 0 {
        Err(format!("step of range should be a positive number: {part}"))
    } else {
        Ok(())
    }
}

fn number(text: &str, field: &Field) -> Result<u32, String> {
    if let Some(index) = field.names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
        return Ok(field.min + u32::try_from(index).unwrap_or(0));
    }
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn schedules_and_what_is_wrong_with_them() {
        for good in ["* * * * *", "*/5 0-6,8 1 jan-MAR sun", "0 0 ? * 6", "@hourly", "@every 1h30m"] {
            assert_eq!(problem(good), None, "{good}");
        }
        let table = [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
        ];
        for (bad, why) in table {
            assert_eq!(problem(bad).as_deref(), Some(why), "{bad}");
        }
    }
}
