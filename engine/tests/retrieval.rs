//! What fewer bits cost where vectors are searched: for the first half of each piece of this project's documents, its second half
//! is looked for among all of them. No embedding model is small enough to lie here: the vectors are the means of the
//! built-in model's states, which was trained to write stories.

use std::path::Path;

use tern::embed::{BITS, codes};
use tern::{Embedder, Model, Options, Pooling};

/// The halves of pieces of 60 words.
fn halves() -> Vec<[String; 2]> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    files.sort();
    files.extend(
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)),
    );
    let texts: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap() + "\n").collect();
    let words: Vec<&str> = texts.split_whitespace().collect();
    let pieces = words.chunks_exact(60).map(|piece| [&piece[..30], &piece[30..]].map(|half| half.join(" ")));
    pieces.take(300).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// For each query all passages, the nearest first.
fn rankings(queries: &[Vec<f64>], passages: &[Vec<f64>]) -> Vec<Vec<usize>> {
    let rank = |query: &Vec<f64>| {
        let scores: Vec<f64> = passages.iter().map(|passage| cosine(query, passage)).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        order
    };
    queries.iter().map(rank).collect()
}

#[test]
fn eight_bits_rank_as_floats_do_and_fewer_cost_what_the_manual_says() {
    let model = Model::story(&Options::default()).unwrap();
    let halves = halves();
    assert!(halves.len() >= 200, "{} pieces", halves.len());
    let mut embedder = Embedder::new(&model, Some(Pooling::Mean)).unwrap();
    let mut vectors = |side: usize| {
        let tokens = |pair: &[String; 2]| Embedder::tokens(&model, &pair[side]).unwrap();
        let tokens: Vec<Vec<u32>> = halves.iter().map(tokens).collect();
        embedder.embed(&tokens, |_| {}).unwrap()
    };
    let (queries, passages) = (vectors(0), vectors(1));
    let kept = |vectors: &[Vec<f32>], bits: u32| -> Vec<Vec<f64>> {
        let keep = |vector: &Vec<f32>| match bits {
            32 => vector.iter().map(|x| f64::from(*x)).collect(),
            _ => codes(vector, bits).into_iter().map(f64::from).collect(),
        };
        vectors.iter().map(keep).collect()
    };
    // A query is kept nowhere, so that it may stay floats.
    let queries = kept(&queries, 32);
    let exact = rankings(&queries, &kept(&passages, 32));
    for bits in BITS {
        let ranked = rankings(&queries, &kept(&passages, bits));
        let share =
            |good: &dyn Fn(usize) -> f64| (0..ranked.len()).map(good).sum::<f64>() / ranked.len() as f64;
        let found = share(&|at| f64::from(u8::from(ranked[at][..10].contains(&at))));
        let first = share(&|at| f64::from(u8::from(ranked[at][0] == exact[at][0])));
        let ten = share(&|at| {
            exact[at][..10].iter().filter(|passage| ranked[at][..10].contains(passage)).count() as f64 / 10.0
        });
        let all =
            share(&|at| f64::from(u8::from(ranked[at][..10].iter().all(|p| exact[at][..10].contains(p)))));
        // How far below the tenth, in floats, a passage was that came among the ten.
        let floats = kept(&passages, 32);
        let below = |at: usize| {
            let score = |passage: &usize| cosine(&queries[at], &floats[*passage]);
            let tenth = score(&exact[at][9]);
            ranked[at][..10].iter().map(|passage| tenth - score(passage)).fold(0f64, f64::max)
        };
        let below = (0..ranked.len()).map(below).fold(0f64, f64::max);
        println!(
            "{bits} bits: second half among the first ten {found:.3}, same first {first:.3}, same ten {ten:.3}, all ten the \
             same {all:.3}, furthest below the tenth {below:.4}"
        );
        // Well off what was measured (docs/embed.md).
        let limits = [(32, 1.0, 0.0), (8, 0.95, 0.003), (4, 0.68, 0.1), (2, 0.55, 0.2), (1, 0.42, 0.3)];
        let (_, least, most) = limits.into_iter().find(|(of, ..)| *of == bits).unwrap();
        assert!(ten >= least, "{bits} bits: {ten}");
        assert!(below <= most, "{bits} bits: {below}");
    }
}
