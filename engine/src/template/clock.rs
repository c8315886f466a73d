//! `strftime_now`, for templates that tell the model today's date. The time is UTC: Rust's library knows no zones.

use crate::date::{civil, days_before, now};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The present time in this format; an error names a directive that is not known.
pub(super) fn strftime(format: &str) -> Result<String, String> {
    format_time(format, now())
}

fn format_time(format: &str, seconds: u64) -> Result<String, String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = DAYS[(days % 7) as usize];
    let name = MONTHS[month as usize - 1];
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            text.push(char);
            continue;
        }
        let directive = chars.next();
        let (directive, bare) = match directive {
            Some('-') => (chars.next(), true),
            other => (other, false),
        };
        let two = |number: u64| if bare { number.to_string() } else { format!("{number:02}") };
        text += &match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('B') => name.to_owned(),
            Some('b' | 'h') => name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('j') => format!("{:03}", days - days_before(year, 1, 1) + 1),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                return Err(format!("strftime_now: the directive `%{}` is not known", other.unwrap_or(' ')));
            }
        };
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| format_time("%a %d %b %Y %H:%M:%S %j", seconds).unwrap();
        assert_eq!(at(0), "Thu 01 Jan 1970 00:00:00 001");
        assert_eq!(at(951_827_696), "Tue 29 Feb 2000 12:34:56 060");
        assert_eq!(at(1_798_761_599), "Thu 31 Dec 2026 23:59:59 365");
        assert_eq!(at(4_107_542_400), "Mon 01 Mar 2100 00:00:00 060");
        assert_eq!(format_time("%-d %B %I%p %%", 3_600 * 13).unwrap(), "1 January 01PM %");
        assert!(format_time("%Q", 0).is_err());
    }
}
