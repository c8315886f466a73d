//! Chat templates: the text that transformers would give.

use tern::{Message, Template};

fn chat(turns: &[(&str, &str)]) -> Vec<Message> {
    turns
        .iter()
        .map(|(role, content)| Message { role: role.to_string(), content: content.to_string() })
        .collect()
}

fn render(source: &str, turns: &[(&str, &str)], prompt: bool) -> String {
    let template = Template::new(source, "<s>", "</s>").unwrap_or_else(|e| panic!("{source}: {e}"));
    template.render(&chat(turns), prompt).unwrap_or_else(|e| panic!("{source}: {e}"))
}

/// An expression's text.
fn value(expression: &str) -> String {
    render(&format!("{{{{ {expression} }}}}"), &[("user", " hi ")], false)
}

const SHORT: [(&str, &str); 3] = [("system", "Be brief."), ("user", " Hi\n"), ("assistant", "Hello")];

#[test]
fn bitnet_2b4t_is_exact() {
    let source = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
                  message['role'] | capitalize + ': '+ message['content'] | trim + '<|eot_id|>' %}{{ content }}\
                  {% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";
    assert_eq!(render(source, &[("user", "hi")], true), "User: hi<|eot_id|>Assistant: ");
    assert_eq!(
        render(source, &SHORT, false),
        "System: Be brief.<|eot_id|>User: Hi<|eot_id|>Assistant: Hello<|eot_id|>"
    );
}

#[test]
fn llama3_headers() {
    let source = "{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = '26 Jul 2024' %}
{%- endif %}
{#- A system message comes first, if there is one. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + 'Today Date: ' + date_string + '\\n\\n' + system_message }}
{{- '<|eot_id|>' }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception('This model only supports single tool-calls at once!') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";
    assert_eq!(
        render(source, &SHORT, true),
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn chatml_and_falcon3() {
    let chatml = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
                  {{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}\
                  {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
                  {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    assert_eq!(
        render(chatml, &[("user", "a"), ("assistant", "b")], true),
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\na<|im_end|>\n\
         <|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n"
    );
    let falcon3 = "{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{%- if not loop.last -%}
{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}
{%- else -%}
{{ '<|assistant|>\n' + message['content'] + eos_token }}
{%- endif -%}
{%- else -%}
{{ '<|' + message['role'] + '|>\n' + message['content'] + '\n' }}
{%- endif -%}
{%- if loop.last and add_generation_prompt -%}
{{ '<|assistant|>\n' }}
{%- endif -%}
{%- endfor -%}";
    assert_eq!(
        render(falcon3, &[("user", "a"), ("assistant", "b"), ("user", "c")], true),
        "<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\n"
    );
}

/// A template that looks back for the last question and hides old thoughts, as models that think have them.
#[test]
fn thoughts_are_taken_apart() {
    let source = r#"{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(looking=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last %}
            {%- if loop.last or (not loop.last and thoughts) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"#;
    let turns = [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\nb"),
        ("user", "c"),
        ("assistant", "<think>x</think>d"),
    ];
    // What Jinja2 3.1 makes of it.
    assert_eq!(
        render(source, &turns, true),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\nx\n</think>\n\nd<|im_end|>\n<|im_start|>assistant\n",
    );
}

#[test]
fn namespaces_macros_and_python_methods() {
    let source = "{%- set ns = namespace(last='', n=0) -%}
{%- macro wrap(text, mark='*') -%}{{ mark ~ text.strip() ~ mark }}{%- endmacro -%}
{%- for m in messages if m.role != 'system' -%}
{%- set ns.n = ns.n + 1 -%}
{%- set ns.last = wrap(m.content, mark='_' * 2) -%}
{%- endfor -%}
{%- generation -%}{{ ns.n }} {{ ns.last }}{%- endgeneration -%}
{%- generation -%} x {%- endgeneration -%}";
    assert_eq!(render(&source.replace("{%- generation", "{%generation"), &SHORT, false), "2 __Hello__x");
    for (expression, expected) in [
        ("'a,b,,c'.split(',')", "['a', 'b', '', 'c']"),
        ("' a  b '.split()", "['a', 'b']"),
        ("'a b c'.split(' ', 1)[1]", "b c"),
        ("'a</think>b'.split('</think>')[-1]", "b"),
        ("'xxaxx'.strip('x') ~ '  l'.lstrip() ~ 'r  '.rstrip() ~ '|'", "alr|"),
        ("'hello world'.title() + 'HeLLo'.capitalize() + 'x'.upper() + 'Y'.lower()", "Hello WorldHelloXy"),
        ("'abc'.startswith('ab') and 'abc'.endswith(('x', 'c'))", "True"),
        ("'aaa'.replace('a', 'b', 2) ~ ('aaa' | replace('a', 'c'))", "bbaccc"),
        ("{'a': 1}.get('a') + {'a': 1}.get('b', 5)", "6"),
        ("{'a': 1}.get('b') is none", "True"),
        ("{'a': 1, 'b': 2}.items() | map('last') | join('+')", "1+2"),
        ("'-'.join({'a': 1, 'b': 2}.keys())", "a-b"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("[1, 2, 3, 4][1:-1] ~ [1, 2, 3][::-1] ~ 'abcd'[::2] ~ 'abcd'[-2:]", "[2, 3][3, 2, 1]accd"),
        ("7 // 2 ~ ' ' ~ 7 % 4 ~ ' ' ~ 2 ** 3 ~ ' ' ~ (1 + 0.5) ~ ' ' ~ 3 * 2", "3 3 8 1.5 6"),
        ("messages[0]['content'] | trim | length", "2"),
        ("messages[-1].role ~ messages[0].nothing", "user"),
        ("'x' if nothing is defined else 'y'", "y"),
        ("tools is none and not tools", "True"),
        (
            "{'a': [1, 2.5, none, true], 'ü\"': 'x\\n'} | tojson",
            "{\"a\": [1, 2.5, null, true], \"ü\\\"\": \"x\\n\"}",
        ),
        (
            "{'b': [], 'a': [1]} | tojson(indent=2, sort_keys=true)",
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}",
        ),
        ("range(3) | list ~ range(5, 0, -2) | list", "[0, 1, 2][5, 3, 1]"),
        (
            "['b', 'a'] | sort | first ~ (messages | selectattr('role', 'equalto', 'user') | list | length)",
            "a1",
        ),
        ("'a\nb' | indent(2) ~ '|' ~ 'a' | indent(2, first=true)", "a\n  b|  a"),
        ("1 < 2 < 3 and 'a' in 'cat' and 'x' not in ['y'] and 2 in [1, 2]", "True"),
        ("true and none or 'or'", "or"),
        ("'abc'.find('c') ~ 'abc'.find('z') ~ 'a.b'.count('.')", "2-11"),
        ("strftime_now('%Y') | int > 2000", "True"),
        ("dict(a=1).a ~ (1, 'b')", "1(1, 'b')"),
        ("'a' | default('b') ~ nothing | default('c')", "ac"),
    ] {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

#[test]
fn blocks_lose_their_line_ends_and_texts_keep_theirs() {
    let source = "a\n  {% if true %}\n  b\n  {% endif %}\nc {{ 'd' }}\n\n";
    assert_eq!(render(source, &[], false), "a\n  b\nc d\n");
}

#[test]
fn exceptions_and_mistakes_are_one_line() {
    let error = |source: &str| {
        let error = Template::new(source, "", "")
            .and_then(|t| t.render(&chat(&SHORT), true))
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\n') && error.len() < 400, "{error}");
        error
    };
    assert_eq!(
        error("\n{{ raise_exception('roles must\nalternate') }}"),
        "chat template: line 2: roles must alternate"
    );
    for (source, expected) in [
        ("{% if %}", "line 1"),
        ("{# generation #}{%}", "line 1"),
        ("{{ x.y }}", "undefined"),
        ("{{ 'a' | nope }}", "nope"),
        ("{{ 'a'.nope() }}", "nope"),
        ("{{ 'a' + 1 }}", "cannot use + between string and number"),
        ("{% include 'x' %}", "not supported"),
        ("{{ [1].append(2) }}", "cannot be changed"),
        (&"x".repeat(70_000), "at most 65536 bytes"),
        ("{% for x in 5 %}{% endfor %}", "iterable"),
        (&format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(201)), "more than 200 `elif`"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(600)), "more than 1000 words in one tag"),
        (&format!("{{% set x = [1] %}}{}", "{% set x = [x] %}".repeat(40)), "nested deeper than 32"),
        ("{% set ns = namespace() %}{% set ns.me = ns %}", "a namespace cannot be part"),
        ("{% set ns = namespace() %}{% set ns.me = [ns] %}", "cannot be part of another value"),
        ("{% set ns = namespace() %}{% set ns.me = {'a': ns} %}", "cannot be part of another value"),
    ] {
        let error = error(source);
        assert!(error.contains(expected), "{source:.60}: {error}");
    }
}

#[test]
fn long_conversations_are_not_bombs() {
    let long = "word ".repeat(400_000);
    let turns: Vec<(&str, &str)> =
        (0..2000).map(|i| (if i % 2 == 0 { "user" } else { "assistant" }, "some words")).collect();
    let source = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim + '\n' }}{% endfor %}";
    assert_eq!(render(source, &turns, false).len(), 2000 * 13 + 1000 * ("user".len() + "assistant".len()));
    assert_eq!(render(source, &[("user", &long)], false).len(), "user: \n".len() + long.len() - 1);
}

#[test]
fn it_is_known_whether_a_system_message_is_read() {
    let reads = |source: &str| Template::new(source, "<s>", "</s>").unwrap().reads_system();
    assert!(reads("{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"));
    assert!(reads(
        "{{ messages[0].content | capitalize }}{% for m in messages[1:] %}{{ m.content }}{% endfor %}"
    ));
    // Leaves it out.
    assert!(!reads("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"));
    // Reads that there is one, and not what it says.
    assert!(!reads(
        "{% for m in messages %}{{ m.role }}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    ));
    // Refuses it.
    assert!(!reads(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    ));
}
