//! `tern doctor`: what this machine is, and whether it computes right.

mod answers;

use clap::Args;
use serde_json::json;
use tern_kernels::ceiling::dot_peak;
use tern_kernels::check::{self, Check};
use tern_kernels::{Cpu, Pool, default_threads};

use crate::failure::{Failure, Outcome};
use crate::machine::Machine;
use crate::terminal;

const EXAMPLES: &str = "\
Every instruction set of this CPU is compared bit for bit with the plain one, on odd shapes and extreme values, and \
a small model must write its known answers with each of them; what its int8 products reach at most stands beside that. \
Exit code 0 means that all checks passed.

Examples:
  tern doctor
  tern doctor --json";

/// Rows of a prompt, of which an instruction set takes tiles where it has them.
const MANY: usize = 512;

/// Show what this machine is and check that it computes right
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Outcome {
        let machine = Machine::look();
        if !self.json {
            terminal::print(&machine.text())?;
        }
        let pool = Pool::new(default_threads());
        let mut checks = Vec::new();
        let mut done = |check: Check| {
            if !self.json {
                let (mark, text) = match &check.result {
                    Ok(text) => ("ok", text),
                    Err(text) => ("WRONG", text),
                };
                terminal::print(&format!("  {:<24} {mark:<6} {text}\n", check.name))?;
            }
            checks.push(check);
            Ok::<(), Failure>(())
        };
        for cpu in Cpu::available() {
            for check in check::kernels(cpu, &pool) {
                done(check)?;
            }
            let name = format!("{} model", cpu.name());
            done(Check { name, result: answers::known(cpu, cpu == Cpu::best()) })?;
            let peak = dot_peak(cpu, &pool, MANY) / 1e9;
            let told = format!("{peak:.0} GMAC/s on {} threads", pool.threads());
            done(Check { name: format!("{} int8 peak", cpu.name()), result: Ok(told) })?;
        }

        let wrong = checks.iter().filter(|check| check.result.is_err()).count();
        if self.json {
            let checks: Vec<_> = checks
                .iter()
                .map(|check| {
                    let (Ok(text) | Err(text)) = &check.result;
                    json!({"name": check.name, "passed": check.result.is_ok(), "detail": text})
                })
                .collect();
            terminal::print_json(
                &json!({"machine": machine.json(), "checks": checks, "passed": wrong == 0}),
            )?;
        } else if wrong == 0 {
            terminal::print("\nall checks passed\n")?;
        }
        if wrong > 0 {
            return Err(Failure::failed(format!(
                "{wrong} of {} checks failed: this machine computes wrong",
                checks.len()
            ))
            .hint("`--cpu scalar` is the plainest way to compute; please report what stands above"));
        }
        Ok(())
    }
}
