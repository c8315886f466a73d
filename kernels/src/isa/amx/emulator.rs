//! Tiles for processors without: an instruction that the CPU refuses comes to a handler of the signal, which does what the
//! manual says on tiles in memory and goes on behind it. So the assembly of `amx.rs` runs in tests on any x86.
//!
//! What a processor would refuse ends the test: a shape or an operand that is not allowed.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::sync::Once;

/// Rows of 64 bytes.
type Tile = [[u8; 64]; 16];

/// The tile registers of a thread.
struct State {
    /// Rows and bytes in each of them; both 0 where a register is not in use.
    shapes: [(usize, usize); 8],
    tiles: [Tile; 8],
}

const RELEASED: State = State { shapes: [(0, 0); 8], tiles: [[[0; 64]; 16]; 8] };

// Neither needs to be dropped or made first, so a handler may use them.
thread_local! {
    static STATE: UnsafeCell<State> = const { UnsafeCell::new(RELEASED) };
    static PRODUCTS: Cell<usize> = const { Cell::new(0) };
}

/// Products of tiles that this thread has emulated.
pub(super) fn products() -> usize {
    PRODUCTS.get()
}

/// Whether this thread has no register in use.
pub(super) fn is_released() -> bool {
    // SAFETY: nothing else looks at this thread's state now.
    STATE.with(|state| unsafe { (*state.get()).shapes == RELEASED.shapes })
}

/// Emulates for all threads from now on.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeros are a valid `sigaction`; the handler has the arguments that SA_SIGINFO gives it.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = refused as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
}

extern "C" fn refused(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the state of the thread, which this handler alone has. Its instruction
    // pointer shows what the CPU fetched.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let mut code = Code { at: registers[libc::REG_RIP as usize] as *const u8 };
        let ours = STATE.with(|state| execute(&mut code, registers, &mut *state.get()));
        if ours.is_some() {
            registers[libc::REG_RIP as usize] = code.at as i64;
        } else {
            // Not one of these: refused again, it ends the process as it would have.
            libc::signal(libc::SIGILL, libc::SIG_DFL);
        }
    }
}

/// Bytes of an instruction, read one after the other.
struct Code {
    at: *const u8,
}

impl Code {
    /// # Safety
    /// * An instruction goes on here.
    unsafe fn next(&mut self) -> u8 {
        // SAFETY: by the condition above.
        unsafe {
            let byte = *self.at;
            self.at = self.at.add(1);
            byte
        }
    }
}

/// Executes one instruction and moves behind it; `None` if it is another's.
///
/// # Safety
/// * `code` is an instruction that the thread with these registers is about to execute.
unsafe fn execute(code: &mut Code, registers: &[i64; 23], state: &mut State) -> Option<()> {
    // SAFETY: VEX prefixes with this map are followed by an operation and a byte of operands. Memory is touched as the
    // instruction would.
    unsafe {
        if code.next() != 0xc4 {
            return None;
        }
        let (high, low) = (code.next(), code.next());
        // Map 0F38, no W, 128 bits.
        if high & 0x1f != 2 || low & 0x84 != 0 {
            return None;
        }
        let (operation, operands) = (code.next(), code.next());
        let third = usize::from(!low >> 3 & 15);
        let (field, rm) = (usize::from(operands >> 3 & 7), usize::from(operands & 7));
        let in_memory = operands >> 6 != 3;
        // None, 66, F3, F2.
        match (operation, low & 3, in_memory) {
            (0x49, 0, true) if field == 0 && third == 0 => {
                let (start, _) = address(code, high, operands, registers);
                configure(state, &*(start as *const [u8; 64]));
            }
            (0x49, 0, false) if field == 0 && rm == 0 && third == 0 => *state = RELEASED,
            (0x49, 3, false) if rm == 0 && third == 0 => {
                in_use(state, field);
                state.tiles[field] = RELEASED.tiles[0];
            }
            (0x4b, 3 | 1, true) if rm == 4 && third == 0 => {
                let (start, stride) = address(code, high, operands, registers);
                let (rows, width) = in_use(state, field);
                state.tiles[field] = RELEASED.tiles[0];
                for row in 0..rows {
                    let from = start.wrapping_add(stride.wrapping_mul(row)) as *const u8;
                    state.tiles[field][row][..width].copy_from_slice(std::slice::from_raw_parts(from, width));
                }
            }
            (0x4b, 2, true) if rm == 4 && third == 0 => {
                let (start, stride) = address(code, high, operands, registers);
                let (rows, width) = in_use(state, field);
                for row in 0..rows {
                    let to = start.wrapping_add(stride.wrapping_mul(row)) as *mut u8;
                    std::slice::from_raw_parts_mut(to, width)
                        .copy_from_slice(&state.tiles[field][row][..width]);
                }
            }
            (0x5e, prefix, false) if third < 8 => {
                // TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD: the first of the factors is signed in the last two.
                multiply(state, field, rm, third, prefix & 2 != 0, prefix & 1 != 0);
                PRODUCTS.set(PRODUCTS.get() + 1);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The rest of an operand in memory: where it starts, and the bytes from row to row where it is a tile.
///
/// # Safety
/// * As for `execute`; the byte of operands was read last.
unsafe fn address(code: &mut Code, high: u8, operands: u8, registers: &[i64; 23]) -> (usize, usize) {
    const NUMBERED: [c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    let value = |number: u8| registers[NUMBERED[usize::from(number)] as usize] as usize;
    let (mode, rm) = (operands >> 6, operands & 7);
    // The prefix holds the upper bits of the numbers upside down.
    let (upper_index, upper_base) = (!high >> 6 & 1, !high >> 5 & 1);
    // SAFETY: by the condition above.
    unsafe {
        let (mut base, mut index, mut scale) = (rm, None, 0);
        if rm == 4 {
            let sib = code.next();
            (base, scale) = (sib & 7, sib >> 6);
            let number = upper_index << 3 | sib >> 3 & 7;
            index = (number != 4).then_some(number);
        }
        assert!(mode != 0 || base != 5, "an address without a base register is not emulated");
        let start = value(upper_base << 3 | base);
        let distance = match mode {
            1 => code.next() as i8 as isize,
            2 => i32::from_le_bytes([code.next(), code.next(), code.next(), code.next()]) as isize,
            _ => 0,
        };
        (start.wrapping_add_signed(distance), index.map_or(0, |index| value(index) << scale))
    }
}

/// Rows and bytes of a row of a register, which must be in use.
fn in_use(state: &State, tile: usize) -> (usize, usize) {
    assert!(state.shapes[tile].0 > 0, "tmm{tile} has no shape");
    state.shapes[tile]
}

/// Takes new shapes, as palette 1 has them.
fn configure(state: &mut State, bytes: &[u8; 64]) {
    assert_eq!(bytes[0], 1, "palette");
    assert!(bytes[1..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).all(|byte| *byte == 0), "reserved");
    *state = RELEASED;
    for tile in 0..8 {
        let width = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]);
        let (rows, width) = (usize::from(bytes[48 + tile]), usize::from(width));
        assert!(
            rows <= 16 && width <= 64 && (rows == 0) == (width == 0),
            "tmm{tile}: {rows} rows of {width}"
        );
        state.shapes[tile] = (rows, width);
    }
}

/// `sums += a · b`, bytes of which may be signed.
fn multiply(state: &mut State, sums: usize, a: usize, b: usize, a_signed: bool, b_signed: bool) {
    assert!(sums != a && sums != b && a != b, "a register twice in a product");
    let ((m, n), (a_rows, depth), (b_rows, b_width)) =
        (in_use(state, sums), in_use(state, a), in_use(state, b));
    assert!(n % 4 == 0 && depth % 4 == 0, "rows of whole lanes");
    assert!(m == a_rows && n == b_width && depth == 4 * b_rows, "{m} by {n}, {depth} deep");
    let value = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
    for row in 0..m {
        for lane in 0..n / 4 {
            let at = 4 * lane..4 * lane + 4;
            let before = state.tiles[sums][row][at.clone()].try_into().expect("four bytes");
            let mut sum = i32::from_le_bytes(before);
            for k in 0..depth {
                let (x, y) = (state.tiles[a][row][k], state.tiles[b][k / 4][4 * lane + k % 4]);
                sum = sum.wrapping_add(value(x, a_signed) * value(y, b_signed));
            }
            state.tiles[sums][row][at].copy_from_slice(&sum.to_le_bytes());
        }
    }
}
