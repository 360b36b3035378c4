//! The five fields of cron: minute, hour, day of the month, month, day of the week; in UTC.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Days that are looked at for the next time: the 29th of February comes within eight years.
const DAYS_MAX: usize = 366 * 8 + 2;

/// When something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// A bit for each value.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// As cron has it: where both are given, one of the days is enough.
    either_day: bool,
}

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("{text:?} has not the five fields of cron, such as \"*/15 * * * *\""));
        };
        let weekday = field(weekdays, 0, 7)?;
        let schedule = Self {
            minutes: field(minutes, 0, 59)?,
            hours: field(hours, 0, 23)?,
            days: field(days, 1, 31)?,
            months: field(months, 1, 12)?,
            // Sunday is 0 and 7.
            weekdays: (weekday | (weekday >> 7)) & 0x7f,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!("{text:?} never comes")),
        }
    }
}

/// `*`, `*/5`, `1-5`, `1-30/5`, `1,3,5`.
fn field(text: &str, min: u32, max: u32) -> Result<u64, String> {
    let wrong = || format!("{text:?} is none of {min} to {max}, * , a-b, */n or a list of them");
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (min..=max).contains(n)).ok_or_else(wrong);
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(wrong)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((from, to)) => (number(from)?, number(to)?),
            None if step > 1 => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        bits = (from..=to).step_by(step).fold(bits, |bits, n| bits | 1 << n);
    }
    Ok(bits)
}

impl Schedule {
    /// The first time after `after`; `None`: never.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = TimeZone::UTC.to_datetime(after);
        let mut date = after.date();
        for day in 0..DAYS_MAX {
            if self.has_day(date) {
                let from =
                    if day == 0 { i32::from(after.hour()) * 60 + i32::from(after.minute()) + 1 } else { 0 };
                if let Some(at) = self.time_of_day(date, from) {
                    return TimeZone::UTC.to_timestamp(at).ok();
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let has = |bits: u64, value: i8| bits & (1 << value) != 0;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    fn time_of_day(&self, date: Date, from_minute: i32) -> Option<DateTime> {
        let fits =
            |minute: &i32| self.hours & (1 << (minute / 60)) != 0 && self.minutes & (1 << (minute % 60)) != 0;
        let minute = (from_minute..24 * 60).find(fits)?;
        // Both are within a day.
        Some(date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_when_they_should() {
        for (text, after, want) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
            ("30 2-4/2 * * *", "2026-01-01T02:31:00Z", "2026-01-01T04:30:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // The first of January 2026 is a Thursday.
            ("0 0 * * 1", "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 * * 0", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 10 * 1", "2026-01-05T00:00:00Z", "2026-01-10T00:00:00Z"),
            ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"),
            ("5,10 1 * * *", "2026-01-01T01:05:59Z", "2026-01-01T01:10:00Z"),
        ] {
            let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{error}"));
            let after: Timestamp = after.parse().expect("a time");
            assert_eq!(schedule.next(after).expect("a time").to_string(), want, "{text}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "0 0 30 2 *",
            "1,, * * * *",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }
}
