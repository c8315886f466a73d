//! Templates made to exhaust time or memory. One test in a process of its own: it measures the process.

use std::time::{Duration, Instant};

use tern::{Message, Template};

/// How long this process has computed, on all its threads: other work on the machine does not count. Where the
/// system does not say, the time on the clock.
fn busy() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name in parentheses: fields 14 and 15 of the line, in hundredths of a second.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    };
    ticks().map_or_else(|| START.elapsed(), |ticks| Duration::from_millis(ticks * 10))
}

/// Peak memory of this process so far, in bytes.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? << 10)
}

#[test]
fn bombs_end_within_a_second_and_64_mib() {
    let looped = |n: u32, body: &str| {
        format!("{{% set ns = namespace(x='a', l=[1]) %}}{{% for i in range({n}) %}}{body}{{% endfor %}}")
    };
    let twice = |start: &str, op: &str| {
        format!("{{% set x = {start} %}}{}", format!("{{% set x = {op} %}}").repeat(40))
    };
    let bombs = [
        // endless loops and recursion
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('abcdefgh') }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}".to_owned(),
        // doubling
        twice("'a'", "x ~ x"),
        twice("'a'", "x + x"),
        twice("'a'", "x * 2"),
        twice("[1]", "[x, x]") + "{{ x }}",
        twice("[1]", "x + x"),
        twice("[1]", "x * 9"),
        twice("'a'", "x | replace('a', 'aa')"),
        twice("'a'", "x.replace('', 'aa')"),
        twice("['a']", "[x, x]") + "{{ x == [x, x] }}",
        twice("{'a': 1}", "{'a': x, 'b': x}") + "{{ x | tojson }}",
        twice("'a'", "(x, x) | join(x)"),
        twice("'a'", "[x, x].__str__") + "{{ x }}",
        looped(9_999, "{% set ns.x = ns.x ~ ns.x %}"),
        looped(9_999, "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        // much at once
        "{{ 'a' * 10000000000 }}".to_owned(),
        "{{ 'a' * 99999999 }}".to_owned(),
        "{{ ('a' * 99999999) ~ x ~ ('b' * 99999999) }}".to_owned(),
        "{{ ['a'] * 99999999 }}".to_owned(),
        "{{ range(1000000000) | list }}".to_owned(),
        "{{ 9 ** 9 ** 9 ** 9 }}".to_owned(),
        "{{ 'a' | indent(9999999999, first=true) }}".to_owned(),
        "{{ 'a\n' * 1000 | indent('b' * 100000) }}".to_owned(),
        "{{ [1] | tojson(indent=99999999) }}".to_owned(),
        "{{ '%99999999d' | format(1) }}".to_owned(),
        // long work on one large value
        "{% set x = 'a' * 9000000 %}".to_owned() + &looped(99_999, "{% if x == x ~ '' %}{% endif %}"),
        "{% set x = 'a' * 9000000 %}{% set y = x[1:] %}".to_owned()
            + &looped(99_999, "{% if x == y %}{% endif %}"),
        "{% set x = 'a' * 9000000 %}".to_owned() + &looped(99_999, "{% if x | length == 1 %}{% endif %}"),
        "{% set x = 'a' * 9000000 %}".to_owned() + &looped(99_999, "{% if 'b' in x %}{% endif %}"),
        "{% set x = 'a' * 9000000 %}".to_owned() + &looped(99_999, "{% set y = x[1:] %}"),
        "{% set x = 'a' * 9000000 %}".to_owned() + &looped(99_999, "{{ x.find('b') }}"),
        "{% set x = [1] * 90000 %}".to_owned() + &looped(99_999, "{% for i in x %}{% break %}{% endfor %}"),
        "{% set x = 'a' * 9000000 %}{% for i in range(99999) %}{{ loop.changed(x) }}{% endfor %}".to_owned(),
        // depth
        looped(99_999, "{% set ns.l = [ns.l] %}"),
        looped(99_999, "{% set ns.l = {'a': ns.l} %}"),
        looped(99_999, "{% set ns.l = ns.l[0:] %}"),
        looped(99_999, "{% set ns.l = ns.l | reverse %}"),
        looped(99_999, "{% set ns.l = (ns.l,) %}"),
        looped(9, "{% set ns.me = ns %}{{ ns }}"),
        looped(9, "{% set ns.me = [ns] %}{{ ns }}"),
        looped(9, "{% set ns.me = loop %}{{ ns.me }}{{ [loop] }}"),
        format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(20_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(16_000)),
        format!("{{{{ 1{} }}}}", "|abs".repeat(16_000)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(5_000)),
        format!("{}{}", "{% if 1 %}".repeat(2_000), "{% endif %}".repeat(2_000)),
        format!("{}{}", "{% for x in [1] %}".repeat(1_000), "{% endfor %}".repeat(1_000)),
        // raw text in a loop
        format!("{{% for a in range(99999) %}}{}{{% endfor %}}", "raw".repeat(20_000)),
        format!(
            "{{% set x %}}{{% for a in range(99999) %}}{}{{% endfor %}}{{% endset %}}",
            "raw".repeat(20_000)
        ),
    ];
    let messages = [Message { role: "user".to_owned(), content: " Hi\n".to_owned() }];
    let before = peak();
    let mut worst = (Duration::ZERO, "");
    for bomb in &bombs {
        let start = busy();
        let result = Template::new(bomb, "", "").and_then(|t| t.render(&messages, true));
        let took = busy() - start;
        worst = worst.max((took, bomb));
        assert!(took < Duration::from_secs(1), "{took:?}: {bomb:.200}");
        if let (Some(before), Some(now)) = (before, peak()) {
            assert!(now < before + (64 << 20), "{} MiB: {bomb:.200}", (now - before) >> 20);
        }
        // A few only look like bombs and render some short text.
        match result {
            Ok(text) => assert!(text.len() < 1 << 16, "{} bytes: {bomb:.200}", text.len()),
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
    println!("{} bombs, the slowest {:.2?}: {:.100}", bombs.len(), worst.0, worst.1);
    println!("peak {:?} MiB above the start", before.zip(peak()).map(|(before, now)| (now - before) >> 20));
}
