//! How both sides show that they know the token without sending it: HMAC-SHA256 over the nonces of both.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

/// Bytes as text.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Never the same twice: the keys of a hash map are the system's random numbers.
pub(crate) fn nonce() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    let mut text = format!("{now} {}", std::process::id());
    for nth in 0..4 {
        text += &format!(" {}", RandomState::new().hash_one(nth));
    }
    hex(&Sha256::digest(text))
}

/// What `side` shows for a token, after both have said a nonce.
pub(crate) fn proof(token: &str, side: &str, worker: &str, leader: &str) -> String {
    hex(&hmac(token.as_bytes(), format!("{side}\0{worker}\0{leader}").as_bytes()))
}

/// Whether two proofs are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_rfc_4231() {
        let known = [
            (&b"Jefe"[..], &b"what do ya want for nothing?"[..], "5bdcc146bf60754e6a042426089575c7"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f",
            ),
        ];
        for (key, text, begin) in known {
            assert!(hex(&hmac(key, text)).starts_with(begin));
        }
    }

    #[test]
    fn a_proof_is_of_one_side_one_token_and_one_meeting() {
        let (a, b) = (nonce(), nonce());
        assert!(a != b && a.len() == 64);
        let one = proof("t", "worker", &a, &b);
        assert!(same(&one, &proof("t", "worker", &a, &b)));
        for other in [
            proof("u", "worker", &a, &b),
            proof("t", "leader", &a, &b),
            proof("t", "worker", &b, &a),
            String::new(),
        ] {
            assert!(!same(&one, &other));
        }
    }
}
