//! What texts grammars allow, token by token, with one token for each byte.

use serde_json::json;

use super::*;
use crate::tools::Tools;
use crate::wire;

fn grammars() -> Grammars {
    // 256 bytes, and a special token that ends.
    let words = (0..=255).map(|byte| vec![byte]).chain([b"\xff<end>".to_vec()]).collect();
    Grammars::with(Words { stops: vec![256], words }, None).unwrap()
}

fn compile(grammar: Grammar) -> Result<Arc<Compiled>, String> {
    let grammars = grammars();
    let compiled = match grammars.find(grammar) {
        Ok(Found::Known(compiled)) => Ok(compiled),
        Ok(Found::New(new)) => grammars.compile(new),
        Err(refusal) => Err(refusal),
    };
    compiled.map_err(|refusal| refusal.message)
}

/// Whether a text can be written, and end there.
fn allows(compiled: &Compiled, text: &str) -> bool {
    let mut guide = grammars().follow(compiled);
    let mut bits = Vec::new();
    for id in text.bytes().map(u32::from).chain([256]) {
        guide.allow(&mut bits).unwrap();
        // Nothing more can come: the end goes without saying.
        if bits.is_empty() {
            return id == 256;
        }
        if bits[id as usize / 32] >> (id % 32) & 1 == 0 {
            return false;
        }
        guide.accept(id).unwrap();
    }
    true
}

fn check(grammar: Grammar, good: &[&str], bad: &[&str]) {
    let compiled = compile(grammar.clone()).unwrap_or_else(|what| panic!("{grammar:?}: {what}"));
    good.iter().for_each(|text| assert!(allows(&compiled, text), "{text:?} by {grammar:?}"));
    bad.iter().for_each(|text| assert!(!allows(&compiled, text), "{text:?} by {grammar:?}"));
}

#[test]
fn gbnf_allows_what_llama_cpp_allows() {
    let gbnf =
        |text: &str| Grammar::text(text).unwrap_or_else(|refusal| panic!("{text}: {}", refusal.message));
    check(gbnf("root ::= \"yes\" | \"no\""), &["yes", "no"], &["", "y", "yesno"]);
    check(gbnf("# comment\nroot ::= [a-c]* \"c\" # here, too\n"), &["c", "abc", "ccc"], &["", "ab", "abd"]);
    check(
        gbnf("root ::= \"a\"{2} \"b\"{1,} \"c\"{0,2} \"d\"{,1}"),
        &["aab", "aabbccd"],
        &["ab", "aabccc", "aac"],
    );
    check(
        gbnf("root ::= a b\na ::= \"x\" |\n  \"y\"\nb ::= (\n  [^\\n\\]]\n)+\n"),
        &["xz", "y[\\"],
        &["x]", "z", "x\n"],
    );
    check(
        gbnf("root ::= \"\\x41\\u00e9\\U0001F600\\\"\\\\\" ."),
        &["A\u{e9}\u{1f600}\"\\\n"],
        &["A\u{e9}\u{1f600}\"\\"],
    );
    check(gbnf("root ::= [-+] [\\]\\-^]"), &["-]", "+^", "--"], &["]-", "+a"]);
    check(gbnf("root ::= \"\" | root \"x\""), &["", "x", "xxx"], &["y"]);
    let json = "root ::= object\n\
                value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n\
                object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n\
                array ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n\
                string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n\
                number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n\
                ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";
    check(
        gbnf(json),
        &["{}", "{\"a\": [1, -2.5e3, \"\\u00e9\\n\"],\n  \"b\": {\"c\": null}}", "{ \"x\":[]}"],
        &["[]", "{a:1}", "{\"a\":01}", "{\"a\"  : 1}", "{\"a\":1,}", "{\"a\":\"\t\"}"],
    );
    let sums = "root ::= (expr \"=\" ws term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= name ws | num ws | \"(\" ws expr \")\" ws\n\
                name ::= [a-z] [a-z0-9_]*\nnum ::= [0-9]+\nws ::= [ \\t\\n]*\n";
    check(gbnf(sums), &["a = 1\n", "a = 1\n\n", "(a+b1)*3=c\n", "a=1\nb=2\n"], &["a = 1", "a+=1\n", "=1\n"]);
    let ends = "root ::= x \"a\"\nx ::= \"(\" x \")\" | \"b\" \"a\"*\n";
    check(gbnf(ends), &["ba", "baaa", "(b)a", "(baa)a"], &["b", "(b)"]);
}

#[test]
fn what_is_no_gbnf_is_told_with_its_line() {
    for (text, what) in [
        ("root ::= a", "there is no rule `a`"),
        ("rot ::= \"a\"", "expected a rule `root`"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2: there are two rules `root`"),
        ("root ::= \"a", "line 1: expected `\"`, found the end"),
        ("root ::= [z-a]", "ends before it begins"),
        ("root ::= []", "found none"),
        ("root ::= \"a\"{3,2}", "the larger number comes first"),
        ("root ::= \"a\"{99999999999}", "expected a number up to"),
        ("root ::= (\"a\"", "expected `)`"),
        ("root ::= \"\\q\"", "`\\q` is not known"),
        ("root ::= <[1000]>", "tokens"),
        ("\nroot ::= \"a\"\nb = \"c\"", "line 3: expected `::=`"),
        (&format!("root ::= {}\"a\"{}", "(".repeat(99), ")".repeat(99)), "groups within each other"),
    ] {
        let refusal = Grammar::text(text).expect_err(text).message;
        assert!(refusal.contains(what), "{text}: {refusal}");
    }
    assert_eq!(
        Grammar::text("start: \"a\" // root ::= b\n"),
        Ok(Grammar::Lark("start: \"a\" // root ::= b\n".to_owned()))
    );
}

fn tools(list: Value, choice: Value) -> Tools {
    let tools = serde_json::from_value(list).unwrap();
    let request = wire::Request { tools: Some(tools), tool_choice: Some(choice), ..wire::Request::default() };
    Tools::of(&request).unwrap().unwrap()
}

#[test]
fn calls_end_and_stand_beside_a_schema() {
    let f = json!({"name": "f", "parameters": {"type": "object", "properties": {
        "x": {"type": "integer"}, "y": {"type": "object", "properties": {"z": {"enum": [1, 2]}}},
    }, "required": ["x"]}});
    let list = json!([{"type": "function", "function": f}, {"type": "function", "function": {"name": "g"}}]);
    let call = |name: &str, arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    let (f, g) = (call("f", "{\"x\": 1, \"y\": {\"z\": 2}}"), call("g", "{}"));
    let invented = [
        call("f", "{\"x\": 1, \"w\": 2}"),
        call("f", "{\"x\": 1, \"y\": {\"z\": 1, \"w\": 2}}"),
        call("g", "{\"x\": 1}"),
    ];
    let invented: Vec<&str> = invented.iter().map(String::as_str).collect();
    check(
        tools(list.clone(), json!("required")).grammar(None),
        &[&f, &g],
        &[&invented[..], &["no", ""]].concat(),
    );
    let free = tools(list.clone(), json!("auto"));
    check(free.grammar(None), &["no", "", &f, &format!("First {f}\n{g}")], &invented);
    let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": false});
    check(
        free.grammar(Some((&schema, Layout::Strict))),
        &["{\"answer\": \"a\"}", &f, &format!("{f}\n{g}")],
        &[&invented[..], &["no", "", &format!("{{\"answer\": \"a\"}}{f}"), &format!("First {f}")]].concat(),
    );
    let mut one = tools(list.clone(), json!("auto"));
    one.several = false;
    check(
        one.grammar(Some((&schema, Layout::Strict))),
        &["{\"answer\": \"a\"}", &f],
        &[&format!("{f}\n{g}")],
    );
    check(
        tools(list, json!("required")).grammar(Some((&schema, Layout::Strict))),
        &[&f],
        &["{\"answer\": \"a\"}"],
    );
}

#[test]
fn what_cannot_be_kept_is_named_or_refused() {
    let schema = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    let lenient = compile(Grammar::Schema(schema.clone(), Layout::Lenient)).unwrap();
    assert!(lenient.warnings.iter().any(|warning| warning.contains("uniqueItems")), "{:?}", lenient.warnings);
    assert!(allows(&lenient, "[1, 1]"));
    let strict = compile(Grammar::Schema(schema.clone(), Layout::Strict)).err().unwrap();
    assert!(strict.contains("uniqueItems"), "{strict}");
    let list = |strict: bool| json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}, "strict": strict}}]);
    assert!(
        compile(tools(list(false), json!("auto")).grammar(None))
            .unwrap()
            .warnings
            .join(" ")
            .contains("uniqueItems")
    );
    assert!(compile(tools(list(true), json!("auto")).grammar(None)).err().unwrap().contains("uniqueItems"));
}

#[test]
fn an_answer_whose_grammar_grows_too_much_ends() {
    // Each of these is more expressions than a step may make, or more than an answer may hold.
    let compiled = compile(Grammar::Regex("((a|b)*a(a|b){300}c|(a|b)*b(a|b){299}d)*".to_owned())).unwrap();
    let grammars = grammars();
    let mut guide = grammars.follow(&compiled);
    let (mut bits, mut seed) = (Vec::new(), 1_u32);
    let ended = (0..100_000).find_map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        guide.allow(&mut bits).and_then(|()| guide.accept(97 + (seed >> 31))).err()
    });
    let ended = ended.expect("it ends");
    assert!(ended.contains("cannot be followed any further"), "{ended}");
    assert_eq!(guide.allow(&mut bits), Err(ended), "and stays so");
    drop(guide);
    assert_eq!(grammars.room.held(), (0, 0), "what it held is free");
}

#[test]
fn a_step_that_is_given_up_ends_its_answer_with_the_reason() {
    let grammars = grammars();
    let compiled = compile(Grammar::Regex("a*".to_owned())).unwrap();
    let mut other = grammars.follow(&compiled);
    let mut answer = Followed::new(&compiled, &grammars.room);
    let mut bits = Vec::new();
    answer.allow(&mut bits).unwrap();
    answer.give_up();
    for _ in 0..2 {
        let what = answer.allow(&mut bits).unwrap_err();
        assert!(what.contains("a step of it takes longer than 1 s"), "{what}");
    }
    other.allow(&mut bits).unwrap();
    other.accept(u32::from(b'a')).unwrap();
}
