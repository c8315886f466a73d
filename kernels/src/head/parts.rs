//! A head as bytes, so that a file can hold it as it is used: codes, screen, scales and norms, each filled up to whole
//! cache lines with zeros.

use super::chance::{Dither, PAD, WEIGHT_DITHER, guess};
use super::{MOST_COLS, OutputHead, screen, screened};
use crate::bytes::Bytes;
use crate::cpu::Cpu;
use crate::isa::{Isa, Kernel};
use crate::packing::ROWS;
use crate::pool::Pool;

/// What every part is filled up to a multiple of: a cache line.
const LINE: usize = 64;
/// Of so many groups of rows, one is compared with its screen when a head is read.
const SAMPLE: usize = 64;

/// Where the parts of a head lie, each as it begins, and the end.
struct Places {
    screen: usize,
    scales: usize,
    norms: usize,
    end: usize,
}

impl Places {
    /// `None` where a head cannot have these sizes.
    fn of(rows: usize, cols: usize) -> Option<Self> {
        u32::try_from(rows).ok()?;
        let part = |start: usize, len: usize| start.checked_add(len)?.checked_next_multiple_of(LINE);
        if rows == 0 || cols == 0 || cols > MOST_COLS {
            return None;
        }
        let screen = part(0, rows.checked_mul(cols.next_multiple_of(PAD))?)?;
        let scales = part(screen, rows.div_ceil(ROWS).checked_mul(screen::group_len(cols))?)?;
        let norms = part(scales, rows.checked_mul(size_of::<f32>())?)?;
        Some(Self { screen, scales, norms, end: part(norms, rows.checked_mul(size_of::<f32>())?)? })
    }
}

impl OutputHead {
    /// Bytes of a head of these sizes in a file; `None` where there can be none.
    pub fn file_len(rows: usize, cols: usize) -> Option<usize> {
        Places::of(rows, cols).map(|places| places.end)
    }

    /// Its bytes for a file, part by part.
    pub fn write<E>(&self, mut out: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let numbers = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (scales, norms) = (numbers(&self.scales), numbers(&self.norms));
        for part in [&self.codes[..], &self.screen[..], &scales, &norms] {
            out(part)?;
            out(&[0; LINE][..part.len().next_multiple_of(LINE) - part.len()])?;
        }
        Ok(())
    }

    /// A head out of a file: its codes and its screen are used where they lie. The numbers of all rows are checked, and of some
    /// rows whether the screen is the one that belongs to their codes; one that is not would hide the likeliest tokens.
    pub fn from_file(cpu: Cpu, pool: &Pool, rows: usize, cols: usize, bytes: &Bytes) -> Result<Self, String> {
        let wrong = || format!("expected a head of {rows} x {cols}, found {} bytes", bytes.len());
        let places = Places::of(rows, cols).filter(|places| places.end == bytes.len()).ok_or_else(wrong)?;
        let stride = cols.next_multiple_of(PAD);
        let part = |start: usize, len: usize| bytes.slice(start..start + len).ok_or_else(wrong);
        let numbers = |start: usize, what: &str| {
            let part = part(start, rows * size_of::<f32>())?;
            let numbers: Vec<f32> =
                part.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect();
            match numbers.iter().position(|number| !(number.is_finite() && number.is_sign_positive())) {
                Some(row) => Err(format!("expected a finite {what} of row {row}, found {}", numbers[row])),
                None => Ok(numbers),
            }
        };
        let head = Self {
            rows,
            cols,
            stride,
            codes: part(0, rows * stride)?,
            screen: part(places.screen, rows.div_ceil(ROWS) * screen::group_len(cols))?,
            scales: numbers(places.scales, "scale")?,
            norms: numbers(places.norms, "norm")?,
        };
        let groups = head.groups();
        let sampled: Vec<usize> = (0..groups).step_by(SAMPLE).chain([groups - 1]).collect();
        let mut bad = vec![false; sampled.len()];
        pool.for_chunks(&mut bad, 1, |nth, bad| bad[0] = !cpu.run(Fits { head: &head, group: sampled[nth] }));
        match bad.iter().position(|bad| *bad) {
            Some(nth) => {
                Err(format!("the screen of rows from {} on is not that of their codes", sampled[nth] * ROWS))
            }
            None => Ok(head),
        }
    }

    /// One row of a head that lies in a file as floats.
    ///
    /// # Panics
    /// If there is no such row, or `bytes` is no such head.
    pub fn row_of_file(bytes: &[u8], rows: usize, row: usize, out: &mut [f32]) {
        let places = Places::of(rows, out.len()).expect("the sizes of a head");
        let codes = &bytes[row * out.len().next_multiple_of(PAD)..][..out.len()];
        let scale =
            bytes[places.scales + row * size_of::<f32>()..].first_chunk().expect("a scale for each row");
        let scale = f32::from_le_bytes(*scale);
        for (value, &code) in out.iter_mut().zip(codes) {
            *value = f32::from(code as i8) * scale;
        }
    }
}

/// Whether a group of rows has the screen and the norms of its codes.
struct Fits<'a> {
    head: &'a OutputHead,
    group: usize,
}

impl Kernel for Fits<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> bool {
        let Self { head, group } = self;
        let len = screen::group_len(head.cols);
        let (dither, guess) = (Dither::new(WEIGHT_DITHER).cells(head.cols), guess(head.cols));
        let (mut digits, mut made) = (vec![0u8; head.stride], vec![0u8; len]);
        let rows = group * ROWS..head.rows.min((group + 1) * ROWS);
        for row in rows.clone() {
            let codes = &head.codes[row * head.stride..][..head.stride];
            // No encoder writes -128: it is in no cell. Padding is zero.
            let (own, padding) = codes.split_at(head.cols);
            if own.contains(&0x80) || padding.iter().any(|code| *code != 0) {
                return false;
            }
            if screened(own, &dither, &guess, &mut digits, &mut made, row - rows.start) != head.norms[row] {
                return false;
            }
        }
        made == head.screen[group * len..][..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{HeadInput, HeadScratch, Wanted};

    fn head(rows: usize, cols: usize) -> OutputHead {
        let value =
            |row: usize, col: usize| ((row * 31 + col * 7) % 23) as f32 - 11.0 + (row % 5) as f32 * 0.1;
        let fill = |row: usize, out: &mut [f32]| {
            out.iter_mut().enumerate().for_each(|(col, out)| *out = value(row, col));
            Ok::<(), ()>(())
        };
        OutputHead::build(Cpu::best(), &Pool::new(2), rows, cols, fill).unwrap()
    }

    fn bytes(head: &OutputHead) -> Vec<u8> {
        let mut bytes = Vec::new();
        head.write(|part| {
            bytes.extend_from_slice(part);
            Ok::<(), ()>(())
        })
        .unwrap();
        bytes
    }

    #[test]
    fn a_head_out_of_a_file_is_the_one_that_was_written() {
        let pool = Pool::new(2);
        for (rows, cols) in [(1, 1), (17, 32), (3000, 100)] {
            let built = head(rows, cols);
            let file = bytes(&built);
            assert_eq!(Some(file.len()), OutputHead::file_len(rows, cols));
            for cpu in Cpu::available() {
                let read = OutputHead::from_file(cpu, &pool, rows, cols, &file.clone().into()).unwrap();
                let x: Vec<f32> = (0..cols).map(|col| (col as f32).sin()).collect();
                let mut input = HeadInput::default();
                input.quantise(cpu, &x, cols).unwrap();
                for k in [0, 1] {
                    let product = |head: &OutputHead| {
                        let (mut out, mut scratch) = (vec![0f32; rows], HeadScratch::default());
                        head.product(cpu, &pool, &input, Wanted::of(&[k]), &mut scratch, &mut out);
                        out
                    };
                    assert_eq!(product(&built), product(&read), "{rows} x {cols}, {k} of them");
                }
            }
            let mut row = vec![0f32; cols];
            OutputHead::row_of_file(&file, rows, rows - 1, &mut row);
            let code = |col: usize| f32::from(built.codes[(rows - 1) * built.stride + col] as i8);
            assert_eq!(row[cols - 1], code(cols - 1) * built.scales[rows - 1]);
        }
    }

    #[test]
    fn bytes_that_are_no_head_are_refused() {
        let (rows, cols, pool) = (40, 33, Pool::new(1));
        let file = bytes(&head(rows, cols));
        let places = Places::of(rows, cols).unwrap();
        let read =
            |file: Vec<u8>| OutputHead::from_file(Cpu::best(), &pool, rows, cols, &file.into()).map(drop);
        assert_eq!(read(file.clone()), Ok(()));
        assert!(read(file[..file.len() - 1].to_vec()).unwrap_err().contains("expected a head of 40 x 33"));
        let with = |at: usize, byte: u8| {
            let mut file = file.clone();
            file[at] = byte;
            read(file).unwrap_err()
        };
        assert!(with(0, 0x80).contains("rows from 0 on"));
        assert!(with(cols, 1).contains("rows from 0 on"), "padding");
        assert!(with(places.screen, file[places.screen] ^ 1).contains("rows from 0 on"));
        assert!(with(places.scales + 7, 0xff).contains("scale of row 1"));
        assert!(with(places.norms + 3, 0xff).contains("norm of row 0"));
        assert_eq!(OutputHead::file_len(usize::MAX / 2, 64), None);
    }
}
