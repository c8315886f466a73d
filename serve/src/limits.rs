//! Every limit of the server in one place. docs/serve.md lists them for people.

use std::time::Duration;

/// Bytes of a request's body.
pub(crate) const BODY: usize = 8 << 20;
/// Bytes of a request's head, and fields in it.
pub(crate) const HEAD: usize = 64 << 10;
pub(crate) const HEAD_FIELDS: usize = 100;
/// Bytes of a path with its query.
pub(crate) const PATH: usize = 4096;
/// From a connection's first byte, or the end of the last answer, to the end of the next head.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(10);
/// Between two pieces of a body.
pub(crate) const BODY_PAUSE: Duration = Duration::from_secs(30);
/// For all of a body.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(120);
/// How long a client may read nothing of what is written to it.
pub(crate) const WRITE_PAUSE: Duration = Duration::from_secs(30);
/// A stream that has nothing to say says so.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Lines of the log that wait to be written; more are dropped and counted.
pub(crate) const LOG_LINES: usize = 1024;
/// Refusals in a second (no key, no place, no memory), and how long those wait that go beyond.
pub(crate) const REFUSALS: usize = 20;
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Connections at the same time.
pub(crate) const CONNECTIONS: usize = 4096;
/// Events that wait for a slow reader; then its sequences stand still.
pub(crate) const EVENTS: usize = 64;

/// Answers to one prompt.
pub(crate) const CHOICES: usize = 16;
/// Prompts of one request, and answers to all of them.
pub(crate) const PROMPTS: usize = 64;
/// Texts of one request for vectors.
pub(crate) const INPUTS: usize = 2048;
/// Messages of a conversation.
pub(crate) const MESSAGES: usize = 2048;
/// Stop texts, and bytes of one.
pub(crate) const STOPS: usize = 16;
pub(crate) const STOP_BYTES: usize = 1024;
/// Alternatives told for each token.
pub(crate) const TOP_LOGPROBS: usize = 20;
/// Tokens with a bias.
pub(crate) const BIASES: usize = 1024;
/// Texts that break repeated sequences, and bytes of one.
pub(crate) const BREAKERS: usize = 16;
pub(crate) const BREAKER_BYTES: usize = 64;
/// Tools of one request.
pub(crate) const TOOLS: usize = 128;
/// Bytes of text to tokenize at once.
pub(crate) const TEXT: usize = 4 << 20;
/// Prompts that are tokenized at the same time.
pub(crate) const PREPARING: usize = 4;

/// Bytes of a schema or grammar, and levels of a schema.
pub(crate) const GRAMMAR: usize = 256 << 10;
pub(crate) const SCHEMA_DEPTH: usize = 64;
/// Properties of one object in a schema, and names that it requires.
pub(crate) const PROPERTIES: usize = 400;
/// Members of one `anyOf`, `oneOf` or `enum`; alternatives of one rule.
pub(crate) const ALTERNATIVES: usize = 1000;
/// Members of one `allOf`.
pub(crate) const MEMBERS: usize = 32;
/// Patterns of a schema, and those for names of properties in one object.
pub(crate) const PATTERNS: usize = 256;
pub(crate) const PATTERN_PROPERTIES: usize = 16;
/// References of a schema, and how many can lie within each other.
pub(crate) const REFERENCES: usize = 2000;
pub(crate) const REFERENCE_DEPTH: usize = 64;
/// Times that something can be repeated, outside of regular expressions.
pub(crate) const TIMES: usize = 1 << 20;
/// Rules of a grammar, and how many can lie within each other.
pub(crate) const RULES: usize = 4000;
pub(crate) const RULE_DEPTH: usize = 256;
/// Characters of a regular expression with its repetitions written out, and repetitions in it.
pub(crate) const REGEX_SIZE: usize = 20_000;
pub(crate) const REGEX_REPEATS: usize = 1000;
/// What a process that tries a grammar may take for it: time of work, time by the clock, memory, stack.
pub(crate) const TRIAL_CPU: Duration = Duration::from_millis(300);
pub(crate) const TRIAL_TIME: Duration = Duration::from_millis(1500);
pub(crate) const TRIAL_BYTES: usize = 96 << 20;
pub(crate) const TRIAL_STACK: usize = 8 << 20;
/// The stack on which the server compiles what could be compiled on that one.
pub(crate) const GRAMMAR_STACK: usize = 64 << 20;
/// What one answer's grammar may hold, and what those of all answers may hold together.
pub(crate) const LEXER_BYTES: usize = 32 << 20;
pub(crate) const LEXERS_BYTES: usize = 112 << 20;
/// How long one step of an answer's grammar may take.
pub(crate) const STEP_TIME: Duration = Duration::from_secs(1);
/// Bytes that the place of one rule in an answer takes.
pub(crate) const ITEM_BYTES: usize = 16;
/// Compiled grammars that are kept, and their bytes.
pub(crate) const KEPT_GRAMMARS: usize = 256;
pub(crate) const KEPT_BYTES: usize = 16 << 20;
/// Grammars that are compiled at the same time.
pub(crate) const COMPILING: usize = 2;
/// Answers of `/v1/responses` that are kept, and bytes of them.
pub(crate) const RESPONSES: usize = 1000;
pub(crate) const RESPONSES_BYTES: usize = 64 << 20;

/// Says that something is over its limit.
pub(crate) fn at_most(most: usize, found: usize, what: &str) -> Result<(), String> {
    if found > most { Err(format!("expected at most {most} {what}, found {found}")) } else { Ok(()) }
}

/// How long a request waits for its model while those that are loaded answer others and leave no room for it.
pub(crate) const ROOM: Duration = Duration::from_secs(30);
/// Models of a server to which clients can add some, names that clients gave them, and bytes of such a name.
pub(crate) const MODELS: usize = 1000;
pub(crate) const COPIES: usize = 100;
pub(crate) const NAME: usize = 200;
/// Bytes of a name that is pulled, copied or deleted.
pub(crate) const PULLED_NAME: usize = 1000;
/// Models that are downloaded at the same time.
pub(crate) const DOWNLOADS: usize = 2;
/// How long a model that is to be deleted may have requests to answer.
pub(crate) const LAST_REQUEST: Duration = Duration::from_secs(2);
/// The longest rest after work before the model that took long.
pub(crate) const REST: Duration = Duration::from_secs(5);
/// How often a request that waits for either looks.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
