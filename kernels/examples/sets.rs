//! Prints the instruction sets of this machine, the fastest last.

fn main() {
    for cpu in tern_kernels::Cpu::available() {
        println!("{}", cpu.name());
    }
}
