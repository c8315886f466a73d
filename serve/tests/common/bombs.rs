//! What a stranger might send to make a grammar cost.

#![allow(dead_code, reason = "the fuzzer takes only the texts")]

use serde_json::{Map, Value, json};

/// A request.
pub(crate) struct Bomb {
    pub(crate) name: String,
    pub(crate) path: &'static str,
    pub(crate) body: Value,
}

/// Every one, each schema in at least two dialects.
pub(crate) fn all() -> Vec<Bomb> {
    let mut bombs = Vec::new();
    for (at, (name, schema)) in schemas().into_iter().enumerate() {
        for way in [0, 1 + at % 6] {
            bombs.push(as_schema(&name, &schema, way));
        }
    }
    for (name, text) in larks().into_iter().chain(gbnfs()) {
        bombs.push(chat(&format!("grammar: {name}"), "grammar", json!(text)));
    }
    for (name, text) in regexes() {
        bombs.push(chat(&format!("regex: {name}"), "regex", json!(text)));
    }
    for (name, tools) in tools() {
        bombs.push(chat(&format!("tools: {name}"), "tools", tools));
    }
    bombs
}

fn messages() -> Value {
    json!([{"role": "user", "content": "x"}])
}

fn chat(name: &str, field: &str, value: Value) -> Bomb {
    let mut body = json!({"messages": messages(), "max_tokens": 16});
    body[field] = value;
    Bomb { name: name.to_owned(), path: "/v1/chat/completions", body }
}

/// A schema in one of seven places.
fn as_schema(name: &str, schema: &Value, way: usize) -> Bomb {
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}});
    let messages = messages();
    let tool = json!({"name": "f", "input_schema": schema});
    let (path, body) = match way {
        0 => (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 16, "response_format": format}),
        ),
        1 => (
            "/v1/responses",
            json!({"input": "x", "max_output_tokens": 16, "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}),
        ),
        2 => (
            "/v1/messages",
            json!({"messages": messages, "max_tokens": 16, "tools": [tool], "tool_choice": {"type": "any"}}),
        ),
        3 => (
            "/api/chat",
            json!({"messages": messages, "options": {"num_predict": 16}, "stream": false, "format": schema}),
        ),
        4 => (
            "/v1/chat/completions",
            json!({
                "messages": messages, "max_tokens": 16, "tool_choice": "required",
                "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
            }),
        ),
        5 => ("/v1/completions", json!({"prompt": "x", "max_tokens": 16, "json_schema": schema})),
        _ => (
            "/v1/responses",
            json!({"input": "x", "max_output_tokens": 16, "tools": [{"type": "function", "name": "f", "parameters": schema}]}),
        ),
    };
    Bomb { name: format!("schema: {name} ({path}, {way})"), path, body }
}

/// A chain of definitions, each made of the next one.
fn chain(links: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut defs = Map::new();
    for at in 0..links {
        defs.insert(format!("d{at}"), link(json!({"$ref": format!("#/$defs/d{}", at + 1)})));
    }
    defs.insert(format!("d{links}"), json!({"type": "string"}));
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

fn named(count: usize, value: impl Fn(usize) -> Value) -> Map<String, Value> {
    (0..count).map(|at| (format!("p{at}"), value(at))).collect()
}

fn nested(levels: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(json!({"type": "string"}), |inner, _| wrap(inner))
}

fn schemas() -> Vec<(String, Value)> {
    let string = || json!({"type": "string"});
    let object = |inner: Value| json!({"type": "object", "properties": {"x": inner}, "required": ["x"], "additionalProperties": false});
    let patterns = |count: usize, pattern: &dyn Fn(usize) -> String| -> Value {
        (0..count).map(|at| json!({"pattern": pattern(at)})).collect()
    };
    let mut list: Vec<(String, Value)> = Vec::new();
    let mut add = |name: &str, schema: Value| list.push((name.to_owned(), schema));
    for links in [60, 230, 1000] {
        add(&format!("{links} objects by references"), chain(links, object));
    }
    add("290 anyOf by references", chain(290, |next| json!({"anyOf": [next, {"type": "null"}]})));
    add("60 anyOf by references", chain(60, |next| json!({"anyOf": [next, {"type": "null"}]})));
    add("590 references to references", chain(590, |next| next));
    add("274 arrays by references", chain(274, |next| json!({"type": "array", "items": next})));
    add("60 maps by references", chain(60, |next| json!({"type": "object", "additionalProperties": next})));
    for links in [12, 24, 60] {
        add(&format!("{links} doubled by allOf"), chain(links, |next| json!({"allOf": [next, next]})));
        add(
            &format!("{links} doubled by properties"),
            chain(
                links,
                |next| json!({"type": "object", "properties": {"a": next, "b": next}, "required": ["a"]}),
            ),
        );
        add(
            &format!("{links} doubled by references with neighbours"),
            chain(
                links,
                |next| json!({"type": "object", "properties": {"a": {"$ref": next["$ref"], "description": "x", "type": "object"}, "b": {"$ref": next["$ref"], "minProperties": 0}}}),
            ),
        );
    }
    add(
        "anyOf of anyOf, multiplied by allOf",
        json!({
            "allOf": (0..12).map(|at| json!({"anyOf": (0..8).map(|other| json!({"type": "object", "properties": {format!("a{at}"): {"const": other}}})).collect::<Value>()})).collect::<Value>(),
        }),
    );
    add(
        "30 anyOf of strings, multiplied by allOf",
        json!({
            "allOf": (0..30).map(|_| json!({"anyOf": [{"pattern": "a"}, {"pattern": "b"}]})).collect::<Value>(),
        }),
    );
    add(
        "20 patterns of one string",
        json!({"type": "string", "allOf": patterns(20, &|at| format!("a{{0,{at}}}b"))}),
    );
    add(
        "100 patterns of one string",
        json!({"type": "string", "allOf": patterns(100, &|at| format!("a{{0,{at}}}b"))}),
    );
    add(
        "5 large patterns of one string",
        json!({"type": "string", "allOf": patterns(5, &|at| format!("(a|b|ab){{{}}}c", 40 + at))}),
    );
    add(
        "two patterns with many states",
        json!({"type": "string", "allOf": [{"pattern": "(a|b)*a(a|b){18}$"}, {"pattern": "(a|b)*b(a|b){17}$"}]}),
    );
    add(
        "periods whose product is large",
        json!({
            "type": "string", "allOf": patterns(7, &|at| format!("^(a{{{}}})*$", [7, 11, 13, 17, 19, 23, 29][at])),
        }),
    );
    add("a pattern with very many states", json!({"type": "string", "pattern": "[ab]*a[ab]{1000}"}));
    add(
        "a pattern of patterns",
        json!({"type": "string", "pattern": "((((a{0,9}b){0,9}c){0,9}d){0,9}e){0,9}"}),
    );
    add("a pattern of classes", json!({"type": "string", "pattern": "(\\p{L}|\\p{N}|\\p{S}){100}"}));
    add(
        "a length and a pattern",
        json!({"type": "string", "pattern": "^(ab|a|b)*$", "minLength": 50_000, "maxLength": 60_000}),
    );
    for (least, most) in [(0, 1 << 19), (100_000, 1 << 20), (0, 1_u64 << 40)] {
        add(
            &format!("a string of {least} to {most}"),
            json!({"type": "string", "minLength": least, "maxLength": most}),
        );
        add(
            &format!("an array of {least} to {most}"),
            json!({"type": "array", "items": string(), "minItems": least, "maxItems": most}),
        );
        add(
            &format!("an object of {least} to {most}"),
            json!({"type": "object", "minProperties": least, "maxProperties": most}),
        );
    }
    add(
        "arrays of arrays of arrays",
        nested(8, |inner| json!({"type": "array", "items": inner, "minItems": 100, "maxItems": 1000})),
    );
    for count in [15, 16, 240, 500] {
        let apart: Map<String, Value> =
            (0..count).map(|at| (format!("^k{at:03}[a-z]{{0,9}}$"), string())).collect();
        add(&format!("{count} patternProperties"), json!({"type": "object", "patternProperties": apart}));
    }
    add(
        "patternProperties and many names",
        json!({
            "type": "object", "properties": named(300, |_| string()), "patternProperties": {"^q.*$": string(), "^[0-9]{1,50}$": string()},
        }),
    );
    for count in [390, 500, 5000] {
        add(
            &format!("{count} properties"),
            json!({"type": "object", "properties": named(count, |_| string())}),
        );
        add(
            &format!("{count} properties, closed"),
            json!({"type": "object", "properties": named(count, |_| string()), "additionalProperties": false}),
        );
    }
    add(
        "390 properties in each of ten",
        json!({
            "anyOf": (0..10).map(|_| json!({"type": "object", "properties": named(390, |_| json!({"type": "integer"}))})).collect::<Value>(),
        }),
    );
    add(
        "4000 required names",
        json!({"type": "object", "required": (0..4000).map(|at| format!("p{at}")).collect::<Vec<_>>()}),
    );
    add(
        "at least one of 300",
        json!({"type": "object", "properties": named(300, |_| string()), "minProperties": 1, "additionalProperties": false}),
    );
    for count in [900, 2500] {
        add(
            &format!("{count} alternatives"),
            json!({"anyOf": (0..count).map(|at| object(json!({"const": at}))).collect::<Value>()}),
        );
        add(
            &format!("{count} words"),
            json!({"enum": (0..count).map(|at| format!("word{at}")).collect::<Vec<_>>()}),
        );
    }
    add(
        "900 oneOf",
        json!({"oneOf": (0..900).map(|at| json!({"type": "string", "const": at.to_string()})).collect::<Value>()}),
    );
    add(
        "large enum of objects",
        json!({"enum": (0..900).map(|at| json!({"a": at, "b": [at, {"c": at}]})).collect::<Value>()}),
    );
    add("a const of 200 KB", json!({"const": "x".repeat(200_000)}));
    add("a const of 20000 numbers", json!({"const": (0..20_000).collect::<Vec<_>>()}));
    add(
        "a range of floats",
        json!({"type": "number", "minimum": 1.234_567_890_123_4e-300, "maximum": 9.876_543_210_987_6e300, "multipleOf": 1e-9}),
    );
    add(
        "multiples of much",
        json!({"type": "integer", "multipleOf": 4_294_967_291_u64, "minimum": -1e18, "maximum": 1e18}),
    );
    add("multiples of little", json!({"type": "number", "multipleOf": 1e-30}));
    add(
        "multiples of a prime, twice",
        json!({"allOf": [{"type": "integer", "multipleOf": 99_991}, {"type": "integer", "multipleOf": 99_989}]}),
    );
    add("60 levels", nested(18, object));
    add("120 levels", nested(38, object));
    add("a schema of itself", json!({"$ref": "#"}));
    add(
        "two of each other",
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    );
    add(
        "itself with neighbours",
        json!({"type": "object", "properties": {"x": {"$ref": "#", "minProperties": 1}}}),
    );
    add("a reference elsewhere", json!({"$ref": "http://127.0.0.1:1/schema"}));
    add("a reference into nothing", json!({"$ref": "#/$defs/nothing"}));
    add(
        "2500 references",
        json!({"type": "array", "prefixItems": (0..900).map(|_| json!({"$ref": "#/$defs/a"})).collect::<Value>(), "$defs": {"a": {"type": "array", "items": {"$ref": "#"}}}}),
    );
    add(
        "options of its own",
        json!({"type": "string", "x-guidance": {"whitespace_pattern": "(a?){1000}(b*c*)*", "whitespace_flexible": true}}),
    );
    add(
        "every format",
        json!({"type": "array", "prefixItems": (["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"].map(|format| json!({"type": "string", "format": format, "minLength": 3, "maxLength": 300})))}),
    );
    list
}

fn larks() -> Vec<(String, String)> {
    let chain = |links: usize, link: &dyn Fn(usize) -> String| {
        let rules: String = (0..links).map(|at| format!("r{at}: {}\n", link(at + 1))).collect();
        format!("start: r0\n{rules}r{links}: \"a\"\n")
    };
    [
        ("800 rules in a chain", chain(800, &|next| format!("r{next}"))),
        ("690 rules in a chain", chain(690, &|next| format!("r{next}"))),
        ("250 rules in a chain", chain(250, &|next| format!("r{next}"))),
        ("60 rules that double", chain(60, &|next| format!("r{next} r{next}"))),
        ("200 rules that fork", chain(200, &|next| format!("r{next} | \"x\" r{next}"))),
        ("empty in 200 ways", chain(200, &|next| format!("r{next}? r{next}?"))),
        ("words that double", (0..60).map(|at| format!("A{at}: A{} A{}\n", at + 1, at + 1)).collect::<String>() + "A60: \"a\"\nstart: A0\n"),
        ("words of words", (0..400).map(|at| format!("A{at}: (A{} | \"b\")\n", at + 1)).collect::<String>() + "A400: \"a\"\nstart: A0\n"),
        ("5000 rules", (0..5000).map(|at| format!("r{at}: \"x{at}\"\n")).collect::<String>() + "start: r0\n"),
        ("2500 alternatives", format!("start: {}\n", (0..2500).map(|at| format!("\"w{at}\" x")).collect::<Vec<_>>().join(" | ")) + "x: \"a\"\n"),
        ("900 alternatives", format!("start: ({})*\nx: \"a\"\n", (0..900).map(|at| format!("\"w{at}\" x")).collect::<Vec<_>>().join(" | "))),
        ("900 expressions", format!("start: ({})*\nx: \"a\"\n", (0..900).map(|at| format!("/[a-z]*{at}/ x")).collect::<Vec<_>>().join(" | "))),
        ("repeated repetitions", "start: (((\"a\"{100}){100}){100}){100}\n".to_owned()),
        ("a repetition of 2 billion", "start: \"a\"{2000000000}\n".to_owned()),
        ("a word 2 billion times", "start: A\nA: \"ab\"{1,2000000000}\n".to_owned()),
        ("left and right", "start: start start | start \"a\" start | \"a\"?\n".to_owned()),
        ("ambiguous without end", "start: a\na: a a a | a a | \"x\" | \"\"\n".to_owned()),
        ("itself", "start: start\n".to_owned()),
        ("words that need each other", "start: A\nA: B\nB: A\n".to_owned()),
        ("not of not", "start: A\nA: ~B & ~C\nB: /(a|b)*a(a|b){16}/\nC: /(a|b)*b(a|b){15}/\n".to_owned()),
        ("both of many", format!("start: A\nA: {}\n", (2..30).map(|at| format!("/(a{{{at}}})*/")).collect::<Vec<_>>().join(" & "))),
        ("nested groups", format!("start: {}\"a\"{}\n", "(".repeat(5000), ")".repeat(5000))),
        ("nested grammars", format!("start: {}\"a\"{}\n", "%lark { start: ".repeat(500), "}".repeat(500))),
        ("the text of a panic", "start: a::100\na::_: \"x\" a::decr(_) ".to_owned()),
        ("parameters", "start: perm::0x0\nperm::_: \"\" %if is_ones([0:12])\n".to_owned() + &(0..12).map(|at| format!("  | \"a{at}\" perm::set_bit({at}) %if bit_clear({at})\n")).collect::<String>()),
        ("all texts within a text", format!("start: A\nA: %regex {{\"substring_chars\": \"{}\"}}\n", "abcdefghij".repeat(5000))),
        ("schema within", format!("start: %json {}\n", json!({"allOf": (0..20).map(|at| json!({"pattern": format!("a{{0,{at}}}b")})).collect::<Value>(), "type": "string"}))),
        ("lazy without end", "start: a b\na[lazy]: /(.|\\n)*/ /(a|b)*a(a|b){18}/\nb: /(.|\\n)*/\n".to_owned()),
        ("ignores everything", "start: \"a\"+\n%ignore /(.|\\n)*?/\n%ignore /(a*b*)*/\n".to_owned()),
        ("60000 quotes", "\"".repeat(60_000)),
        ("nothing but a line", "start:".to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

fn gbnfs() -> Vec<(String, String)> {
    let chain = |links: usize, link: &dyn Fn(usize) -> String| {
        let rules: String = (0..links).map(|at| format!("r{at} ::= {}\n", link(at + 1))).collect();
        format!("root ::= r0\n{rules}r{links} ::= \"a\"\n")
    };
    [
        ("GBNF: 3000 rules in a chain", chain(3000, &|next| format!("r{next}"))),
        ("GBNF: 60 rules that double", chain(60, &|next| format!("r{next} r{next}"))),
        ("GBNF: 60 rules that repeat", chain(60, &|next| format!("r{next}{{0,9}}"))),
        ("GBNF: itself", "root ::= root\n".to_owned()),
        ("GBNF: left and right", "root ::= root root | \"a\" | \"\"\n".to_owned()),
        ("GBNF: groups", format!("root ::= {}\"a\"{}\n", "(".repeat(20_000), ")".repeat(20_000))),
        ("GBNF: much of a class", "root ::= [^a]{1000000}\n".to_owned()),
        ("GBNF: repetitions", "root ::= ((((\"a\" | \"ab\"){100}){100}){100}){100}\n".to_owned()),
        ("GBNF: 5000 rules", (0..5000).map(|at| format!("r{at} ::= \"x\"\n")).collect::<String>()),
        ("GBNF: a class without end", format!("root ::= [{}\n", "a-z".repeat(20_000))),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

fn regexes() -> Vec<(String, String)> {
    [
        ("100000 times a?", "a?".repeat(100_000)),
        ("8000 times a?", "a?".repeat(8000)),
        ("1000 times a?", "a?".repeat(1000)),
        ("900 times (a|b)?", "(a|b)?".repeat(900)),
        ("repetitions of repetitions", "((((a{100}){100}){100}){100}){100}".to_owned()),
        ("stars of stars", format!("{}a{}", "(".repeat(90), "*)".repeat(90))),
        ("nested groups", format!("{}a{}", "(".repeat(5000), ")".repeat(5000))),
        ("many states", "(a|b)*a(a|b){20}".to_owned()),
        ("very many states", "[ab]*a[ab]{15000}".to_owned()),
        ("many characters of Unicode", "[\\p{L}\\p{M}\\p{N}]{2000}".to_owned()),
        ("classes of Unicode", "\\p{L}\\p{Lu}\\p{Greek}\\p{Han}\\p{Cyrillic}".repeat(200)),
        ("case of everything", format!("(?i){}", "\u{e9}\u{df}\u{130}k".repeat(4000))),
        ("alternatives", (0..20_000).map(|at| format!("w{at}")).collect::<Vec<_>>().join("|")),
        ("few alternatives", (0..3000).map(|at| format!("w{at}")).collect::<Vec<_>>().join("|")),
        ("tails", (0..200).map(|at| format!(".*{at}.*")).collect::<Vec<_>>().join("|")),
        ("200 KB of text", "x".repeat(200_000)),
        ("19 KB of text", "x".repeat(19_000)),
        ("nothing", "[^\\x00-\\x{10FFFF}]".to_owned()),
        ("looks around", "(?=a)b".to_owned()),
        ("unclosed", "(".repeat(50_000)),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

fn tools() -> Vec<(String, Value)> {
    let tool = |name: String, parameters: Value| json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}});
    let large = || json!({"type": "object", "properties": named(100, |at| json!({"type": "string", "pattern": format!("^[a-z]{{0,{at}}}$")}))});
    let wide = || json!({"type": "object", "properties": named(20, |_| json!({"type": ["string", "null", "array", "object"]}))});
    [
        ("128 of 20 properties", (0..128).map(|at| tool(format!("f{at}"), wide())).collect::<Value>()),
        ("128 of 100 patterns", (0..128).map(|at| tool(format!("f{at}"), large())).collect()),
        ("2 of 100 patterns", (0..2).map(|at| tool(format!("f{at}"), large())).collect()),
        ("128 of anything", (0..128).map(|at| tool(format!("f{at}"), json!({}))).collect()),
        ("129", (0..129).map(|at| tool(format!("f{at}"), json!({}))).collect()),
        ("unknown keywords", json!([tool("f".to_owned(), json!({"type": "object", "propertyNames": {"pattern": "a"}, "not": {}, "if": {}, "contains": {}, "uniqueItems": true, "dependentRequired": {}}))])),
        ("a name that is a grammar", json!([tool("x\"|/.*/".to_owned(), json!({}))])),
        ("marks in a schema", json!([tool("f".to_owned(), json!({"type": "object", "properties": {"</tool_call>": {"const": "</tool_call>\n\"}"}}}))])),
    ]
    .map(|(name, tools)| (name.to_owned(), tools))
    .into()
}
