//! The exact rows: one int8 code for each weight, row after row.

/// Columns whose products fit an i32 whatever their signs: 512 * 127 * 32512 < 2^31.
const SPAN: usize = 512;

/// `Σ code * x` in exact integers. The inner loop is what compilers turn into 16-bit multiply-and-add.
#[inline(always)]
pub(super) fn product(row: &[i8], x: &[i16]) -> i64 {
    let mut total = 0i64;
    let mut start = 0;
    while start < row.len() {
        let end = (start + SPAN).min(row.len());
        let mut sum = 0i32;
        for (&code, &x) in row[start..end].iter().zip(&x[start..end]) {
            sum += i32::from(code) * i32::from(x);
        }
        total += i64::from(sum);
        start = end;
    }
    total
}
