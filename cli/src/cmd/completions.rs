//! `tern completions` and `tern man`: what shells and `man` know of the commands, from the one definition of them.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::failure::{Failure, Outcome};
use crate::terminal;

const COMPLETIONS: &str = "\
Examples:
  tern completions bash > ~/.local/share/bash-completion/completions/tern
  tern completions zsh > ~/.zfunc/_tern
  tern completions fish > ~/.config/fish/completions/tern.fish";

const MAN: &str = "\
Examples:
  tern man ~/.local/share/man/man1";

/// Print what a shell needs to complete Tern's commands and flags
#[derive(Args)]
#[command(after_help = COMPLETIONS)]
pub(crate) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", value_parser = shell, hide_possible_values = true)]
    shell: Shell,
}

/// Write a manual page for every command into a folder
#[derive(Args)]
#[command(after_help = MAN)]
pub(crate) struct Man {
    /// The folder; it is made where it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

fn shell(text: &str) -> Result<Shell, String> {
    <Shell as ValueEnum>::from_str(text, true)
        .map_err(|_| "expected bash, zsh, fish, elvish or powershell".to_owned())
}

impl Completions {
    pub(crate) fn run(self, mut tern: Command) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut tern, "tern", &mut script);
        terminal::print(&String::from_utf8_lossy(&script))
    }
}

impl Man {
    pub(crate) fn run(self, mut tern: Command) -> Outcome {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| Failure::failed(format!("{path}: {error}"))
        };
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        tern.build();
        let mut pages = 0;
        let mut commands = vec![tern];
        while let Some(command) = commands.pop() {
            let visible =
                command.get_subcommands().filter(|part| !part.is_hide_set() && part.get_name() != "help");
            commands.extend(visible.cloned());
            // `tern eval ppl` is the page tern-eval-ppl.
            let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
            let path = self.folder.join(format!("{name}.1"));
            let mut page = Vec::new();
            clap_mangen::Man::new(command.display_name(&name)).render(&mut page).map_err(failed(&path))?;
            fs::write(&path, page).map_err(failed(&path))?;
            pages += 1;
        }
        terminal::remark(&format!("wrote {pages} pages to {}", self.folder.display()));
        Ok(())
    }
}
