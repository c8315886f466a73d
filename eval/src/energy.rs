//! The energy that a piece of work took, from the system's own counters. Where there are none, there is a reason and no
//! number: nothing is ever guessed from a CPU's name or its rated power.
//!
//! Linux: the `intel-rapl` counters of powercap (AMD's CPUs have them under the same name). What is added up is every
//! package and, where there is one, its `dram` child, which the package's counter leaves out. Other children (`core`,
//! `uncore`) are parts of their package and would count twice. `psys` is left out too: it is the whole platform, with
//! display and disks, on the few machines that have it. The counters are the machine's, not this process's.
//!
//! macOS: `powermetrics` reports the processor's power in intervals, to root only.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where Linux keeps its counters.
const POWERCAP: &str = "/sys/class/powercap";

/// A way to measure energy that this system has.
#[derive(Clone, Debug)]
pub struct Meter(Source);

#[derive(Clone, Debug)]
enum Source {
    Powercap(Vec<Counter>),
    Powermetrics,
}

/// One counter of microjoules that starts again from zero after `range`.
#[derive(Clone, Debug)]
struct Counter {
    /// `package-0`, `dram`, …
    name: String,
    path: PathBuf,
    range: Option<u64>,
}

impl Meter {
    /// This system's, or why there is none.
    pub fn new() -> Result<Meter, String> {
        if cfg!(target_os = "macos") { Self::powermetrics() } else { Self::powercap(Path::new(POWERCAP)) }
    }

    /// The counters under this directory, laid out as Linux lays out `/sys/class/powercap`.
    pub fn powercap(root: &Path) -> Result<Meter, String> {
        let zones = zones(root)?;
        let mut counters = Vec::new();
        for (zone, name) in zones {
            // `intel-rapl:0` is a package or the platform, `intel-rapl:0:1` a part of a package.
            let part = zone.matches(':').count() > 1;
            if (part && name == "dram") || (!part && name != "psys") {
                counters.push(Counter::open(root.join(zone), name)?);
            }
        }
        if counters.is_empty() {
            return Err(format!("{}: no energy counter of a processor", root.display()));
        }
        Ok(Meter(Source::Powercap(counters)))
    }

    fn powermetrics() -> Result<Meter, String> {
        let tried =
            Command::new("powermetrics").args(["--samplers", "cpu_power", "-i", "10", "-n", "1"]).output();
        let tried = tried.map_err(|e| format!("powermetrics: {e}"))?;
        let text = String::from_utf8_lossy(&tried.stdout);
        if !tried.status.success() || sampled(&text).is_none() {
            let said = String::from_utf8_lossy(&tried.stderr);
            let why = said.lines().next().unwrap_or("no figure of processor power");
            return Err(format!("powermetrics: {why}; it works for root only"));
        }
        Ok(Meter(Source::Powermetrics))
    }

    /// What is measured, in a few words.
    pub fn source(&self) -> String {
        match &self.0 {
            Source::Powercap(counters) => {
                let names: Vec<_> = counters.iter().map(|counter| counter.name.as_str()).collect();
                format!("powercap {}", names.join(" + "))
            }
            Source::Powermetrics => "powermetrics".to_owned(),
        }
    }

    /// Begins to measure.
    pub fn start(&self) -> Result<Measure, String> {
        Ok(Measure(match &self.0 {
            Source::Powercap(counters) => Running::Powercap(
                counters
                    .iter()
                    .map(|counter| Ok((counter.clone(), counter.read()?)))
                    .collect::<Result<_, String>>()?,
            ),
            Source::Powermetrics => {
                let mut command = Command::new("powermetrics");
                command.args(["--samplers", "cpu_power", "-i", "100"]).stdin(Stdio::null());
                command.stdout(Stdio::piped()).stderr(Stdio::null());
                Running::Powermetrics(command.spawn().map_err(|e| format!("powermetrics: {e}"))?)
            }
        }))
    }
}

/// A measurement that is going on.
#[derive(Debug)]
pub struct Measure(Running);

#[derive(Debug)]
enum Running {
    /// Each counter and where it stood.
    Powercap(Vec<(Counter, u64)>),
    Powermetrics(Child),
}

impl Measure {
    /// Ends it: the joules since its beginning, or why they are not known. A counter may start again once in between,
    /// which takes it minutes at full power.
    pub fn joules(self) -> Result<f64, String> {
        match self.0 {
            Running::Powercap(counters) => {
                let mut microjoules = 0.0;
                for (counter, before) in counters {
                    microjoules += counter.since(before, counter.read()?)? as f64;
                }
                Ok(microjoules / 1e6)
            }
            Running::Powermetrics(mut child) => {
                let _ = child.kill();
                let mut text = String::new();
                let out = child.stdout.take().map(|mut out| out.read_to_string(&mut text));
                let _ = child.wait();
                match (out, sampled(&text)) {
                    (Some(Ok(_)), Some(joules)) => Ok(joules),
                    _ => Err("powermetrics: no sample was taken in so short a time".to_owned()),
                }
            }
        }
    }
}

impl Counter {
    fn open(zone: PathBuf, name: String) -> Result<Self, String> {
        let range = std::fs::read_to_string(zone.join("max_energy_range_uj")).ok();
        let counter = Self {
            name,
            path: zone.join("energy_uj"),
            range: range.and_then(|text| text.trim().parse().ok()),
        };
        counter.read()?; // most systems let root alone read it
        Ok(counter)
    }

    fn read(&self) -> Result<u64, String> {
        let at = self.path.display();
        let text = std::fs::read_to_string(&self.path).map_err(|e| format!("{at}: {e}"))?;
        text.trim()
            .parse()
            .map_err(|_| format!("{at}: expected microjoules, found `{}`", tern::quoted(text.trim())))
    }

    /// Microjoules between two readings.
    fn since(&self, before: u64, after: u64) -> Result<u64, String> {
        if after >= before {
            return Ok(after - before);
        }
        // It counts up to its range and goes on from zero.
        match self.range {
            Some(range) if range >= before => Ok(range - before + after),
            _ => Err(format!("{}: started again, and its range is not known", self.path.display())),
        }
    }
}

/// The zones of `intel-rapl` and their names, in order. (`intel-rapl-mmio` shows the same packages a second time.)
fn zones(root: &Path) -> Result<Vec<(String, String)>, String> {
    let entries = std::fs::read_dir(root).map_err(|e| format!("{}: {e}", root.display()))?;
    let mut zones: Vec<(String, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let zone = entry.file_name().into_string().ok().filter(|zone| zone.starts_with("intel-rapl:"))?;
            let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
            Some((zone, name.trim().to_owned()))
        })
        .collect();
    zones.sort();
    Ok(zones)
}

/// Joules in the samples of `powermetrics`: each says how long it lasted, and the power of the processor.
fn sampled(text: &str) -> Option<f64> {
    let (mut ms, mut millijoules, mut any) = (0.0, 0.0, false);
    for line in text.lines() {
        if let Some(elapsed) = line.split_once('(').and_then(|(_, rest)| rest.rsplit_once("ms elapsed)")) {
            // `*** Sampled system activity (Sat Nov 21 03:00:00 2026 +0000) (103.51ms elapsed) ***`
            ms = elapsed.0.rsplit('(').next()?.trim().parse().ok()?;
        } else if let Some(power) = line.strip_prefix("CPU Power:") {
            // `CPU Power: 1234 mW`
            let milliwatts: f64 = power.trim().strip_suffix("mW")?.trim().parse().ok()?;
            millijoules += milliwatts * ms / 1e3;
            any = true;
        }
    }
    any.then_some(millijoules / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like `/sys/class/powercap`: zone, name, microjoules, range.
    fn tree(zones: &[(&str, &str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (zone, name, energy, range) in zones {
            let zone = root.path().join(zone);
            std::fs::create_dir(&zone).unwrap();
            for (file, text) in [("name", name), ("energy_uj", energy), ("max_energy_range_uj", range)] {
                std::fs::write(zone.join(file), format!("{text}\n")).unwrap();
            }
        }
        root
    }

    fn set(root: &tempfile::TempDir, zone: &str, energy: u64) {
        std::fs::write(root.path().join(zone).join("energy_uj"), format!("{energy}\n")).unwrap();
    }

    #[test]
    fn packages_and_their_memory_count_and_nothing_twice() {
        let root = tree(&[
            ("intel-rapl:0", "package-0", "1000000", "262143328850"),
            ("intel-rapl:0:0", "core", "500000", "262143328850"),
            ("intel-rapl:0:1", "dram", "100", "65712999613"),
            ("intel-rapl:1", "package-1", "7", "262143328850"),
            ("intel-rapl:2", "psys", "9", "262143328850"),
            ("intel-rapl-mmio:0", "package-0", "1000000", "262143328850"),
        ]);
        let meter = Meter::powercap(root.path()).unwrap();
        assert_eq!(meter.source(), "powercap package-0 + dram + package-1");
        let measure = meter.start().unwrap();
        for (zone, energy) in [
            ("intel-rapl:0", 3_500_000),
            ("intel-rapl:0:0", 9_500_000),
            ("intel-rapl:0:1", 250_100),
            ("intel-rapl:1", 1_000_007),
            ("intel-rapl:2", 99_000_009),
            ("intel-rapl-mmio:0", 3_500_000),
        ] {
            set(&root, zone, energy);
        }
        assert_eq!(measure.joules(), Ok(2.5 + 0.25 + 1.0));
    }

    #[test]
    fn a_counter_that_starts_again_is_followed_if_its_range_is_known() {
        let root = tree(&[("intel-rapl:0", "package-0", "9000000", "10000000")]);
        let measure = Meter::powercap(root.path()).unwrap().start().unwrap();
        set(&root, "intel-rapl:0", 500_000);
        assert_eq!(measure.joules(), Ok(1.5));
        let root = tree(&[("intel-rapl:0", "package-0", "9000000", "?")]);
        let measure = Meter::powercap(root.path()).unwrap().start().unwrap();
        set(&root, "intel-rapl:0", 500_000);
        assert!(measure.joules().unwrap_err().ends_with("started again, and its range is not known"));
    }

    #[test]
    fn without_counters_there_is_a_reason() {
        let nowhere = tempfile::tempdir().unwrap().path().join("powercap");
        assert!(Meter::powercap(&nowhere).unwrap_err().contains("powercap: "));
        let empty = tree(&[("intel-rapl:0", "psys", "1", "10")]);
        assert!(Meter::powercap(empty.path()).unwrap_err().ends_with("no energy counter of a processor"));
        let garbage = tree(&[("intel-rapl:0", "package-0", "a lot", "10")]);
        let why = Meter::powercap(garbage.path()).unwrap_err();
        assert!(why.ends_with("energy_uj: expected microjoules, found `a lot`"), "{why}");
        let locked = tree(&[("intel-rapl:0", "package-0", "1", "10")]);
        std::fs::remove_file(locked.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert!(Meter::powercap(locked.path()).unwrap_err().contains("energy_uj: "));
        // Gone in the middle of a measurement.
        let root = tree(&[("intel-rapl:0", "package-0", "1", "10")]);
        let measure = Meter::powercap(root.path()).unwrap().start().unwrap();
        drop(root);
        assert!(measure.joules().is_err());
    }

    #[test]
    fn samples_of_powermetrics_are_added_up() {
        let text = "Machine model: Mac14,2\nOS version: 22G120\n\n\
            *** Sampled system activity (Sat Nov 21 03:00:00 2026 +0000) (100.00ms elapsed) ***\n\n\
            **** Processor usage ****\n\nE-Cluster Online: 100%\nCPU 0 frequency: 1100 MHz\n\
            CPU Power: 1500 mW\nGPU Power: 20 mW\nANE Power: 0 mW\nCombined Power (CPU + GPU + ANE): 1520 mW\n\n\
            *** Sampled system activity (Sat Nov 21 03:00:00 2026 +0000) (200.50ms elapsed) ***\n\n\
            CPU Power: 4000 mW\nGPU Power: 20 mW\n";
        let joules = sampled(text).unwrap();
        assert!((joules - (0.15 + 0.802)).abs() < 1e-9, "{joules}");
        assert_eq!(sampled("powermetrics must be invoked as the superuser\n"), None);
        assert_eq!(sampled(""), None);
    }
}
