//! What the system tells about the machine. Everything but the CPU's kernels is a courtesy: unknown where not told.

use std::fmt::Write;

use serde_json::{Value, json};
use tern_kernels::{Cpu, default_threads};

pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    /// Bytes, all and available.
    pub(crate) memory: Option<(u64, u64)>,
    /// `always`, `madvise` or `never`.
    huge_pages: Option<String>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let meminfo = read("/proc/meminfo");
        let bytes = |key| field(&meminfo, key)?.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024);
        let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: bytes("MemTotal").zip(bytes("MemAvailable")),
            // The chosen one stands in brackets: `always [madvise] never`.
            huge_pages: huge.split_once('[').and_then(|(_, rest)| Some(rest.split_once(']')?.0.to_owned())),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<16} {value}");
        };
        row("tern", env!("CARGO_PKG_VERSION"));
        row("system", &format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
        row("CPU", &self.cpu);
        row("instructions", &instructions().join(" "));
        row("kernels", &format!("{} (uses {})", names().join(", "), Cpu::best().name()));
        row("threads", &format!("{} of {} allowed", default_threads(), self.cores));
        match self.memory {
            Some((all, free)) => row("memory", &format!("{} GiB, {} GiB free", gib(all), gib(free))),
            None => row("memory", "unknown"),
        }
        row("huge pages", self.huge_pages.as_deref().unwrap_or("unknown"));
        text.push('\n');
        text
    }

    /// One line for the head of a record: CPU, cores, system, version.
    pub(crate) fn line(&self) -> String {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let memory = self.memory.map_or(String::new(), |(all, _)| format!(", {} GiB", gib(all)));
        let cores = if self.cores == 1 { "1 core".to_owned() } else { format!("{} cores", self.cores) };
        format!("{}, {cores}{memory}, {os} {arch}, tern {}", self.cpu, env!("CARGO_PKG_VERSION"))
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "cpu": self.cpu,
            "instructions": instructions(),
            "kernels": names(),
            "kernel_used": Cpu::best().name(),
            "threads": default_threads(),
            "cores_allowed": self.cores,
            "memory_bytes": self.memory.map(|(all, _)| all),
            "memory_free_bytes": self.memory.map(|(_, free)| free),
            "huge_pages": self.huge_pages,
        })
    }
}

fn names() -> Vec<&'static str> {
    Cpu::available().into_iter().map(Cpu::name).collect()
}

/// The most memory that this process has held at once, in bytes, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    field(&status, "VmHWM")?.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// One decimal.
fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

/// What the system tells in a file, or nothing.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first `key : value` line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// Those of the CPU's instruction sets that matter to ternary kernels, present or future.
fn instructions() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let mut see = |name, is| {
            if is {
                found.push(name)
            }
        };
        see("avx2", std::arch::is_x86_feature_detected!("avx2"));
        see("f16c", std::arch::is_x86_feature_detected!("f16c"));
        see("avxvnni", std::arch::is_x86_feature_detected!("avxvnni"));
        see("avx512f", std::arch::is_x86_feature_detected!("avx512f"));
        see("avx512bw", std::arch::is_x86_feature_detected!("avx512bw"));
        see("avx512vbmi", std::arch::is_x86_feature_detected!("avx512vbmi"));
        see("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni"));
        let cpuinfo = read("/proc/cpuinfo");
        let told =
            |name| field(&cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == name));
        see("amx-tile", told("amx_tile"));
        see("amx-int8", told("amx_int8"));
    }
    #[cfg(target_arch = "aarch64")]
    {
        let mut see = |name, is| {
            if is {
                found.push(name)
            }
        };
        see("neon", std::arch::is_aarch64_feature_detected!("neon"));
        see("dotprod", std::arch::is_aarch64_feature_detected!("dotprod"));
        see("i8mm", std::arch::is_aarch64_feature_detected!("i8mm"));
    }
    found
}
