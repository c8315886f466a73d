//! How good a model is: the likelihood of texts ([`Scorer`]), perplexity, the divergence of two models, public test sets
//! ([`tasks`]), a needle in a long text ([`needle`]), and the energy that work takes ([`Meter`]).
//!
//! ```
//! use tern::{Model, Options, Specials};
//! use tern_eval::{Item, Scorer};
//!
//! # fn main() -> tern::Result<()> {
//! let model = Model::story(&Options::default())?;
//! let ids = |text: &str| model.tokenizer()?.encode(text, false, Specials::Text);
//! let item = Item { context: ids("Once upon a")?, ends: vec![ids(" time")?, ids(" stone")?] };
//! let ends = &Scorer::new(&model, 1).score(&[item])?[0];
//! let logprob = |end: usize| ends[end].iter().map(|token| token.logprob).sum::<f64>();
//! assert!(logprob(0) > logprob(1));
//! # Ok(())
//! # }
//! ```
//!
//! Figures are printed and put to files by whoever asked for them; nothing here reads arguments or writes files.

mod divergence;
mod energy;
pub mod needle;
mod perplexity;
mod score;
pub mod tasks;

pub use divergence::{Apart, Divergence};
pub use energy::{Measure, Meter};
pub use perplexity::{Convention, Window};
pub use score::{Item, Likelihood, Scorer, Summary};
