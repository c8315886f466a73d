//! `tern eval report`: figures that were measured, on one page.

mod draw;
mod gather;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use tern::date;
use tern::file::Whole;
use tern_train::svg::escaped;

use crate::failure::Outcome;
use crate::terminal;
use gather::Report;

const EXAMPLES: &str = "\
FILES are what other commands print with --json: `tern eval ppl`, `tasks`, `compare` and `needle`, and `tern bench`. \
Figures of the same model stand together, by its name; give each model's files.

Examples:
  tern eval tasks model.gguf arc_easy --data eval/ --json > tasks.json
  tern bench model.gguf --json > bench.json
  tern eval report page.html tasks.json bench.json --markdown page.md";

/// One HTML page with everything that was measured
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportArgs {
    /// The page to write; it needs nothing but itself
    page: PathBuf,
    /// Measurements: JSON that the other commands printed
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// Write the same tables as Markdown into this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The page's title
    #[arg(long, default_value = "Evaluation")]
    title: String,
}

impl ReportArgs {
    pub(super) fn run(self) -> Outcome {
        let mut report = Report::default();
        for file in &self.files {
            report.take(file, &super::ppl::read(file)?)?;
        }
        Whole::begin(&self.page)?.publish(html(&report, &self.title).as_bytes())?;
        let markdown = markdown(&report, &self.title);
        match &self.markdown {
            Some(path) => Ok(Whole::begin(path)?.publish(markdown.as_bytes())?),
            None => terminal::print(&markdown),
        }
    }
}

/// A table of texts: what both forms are made of.
struct Table {
    title: &'static str,
    /// What its columns need said; empty where nothing.
    about: String,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn markdown(report: &Report, title: &str) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut text = format!("# {}\n", cell(title));
    for table in report.tables() {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let _ = write!(text, "\n## {}\n\n", table.title);
        if !table.about.is_empty() {
            let _ = write!(text, "{}\n\n", cell(&table.about));
        }
        text.push_str(&line(table.head.iter().map(|cell| (*cell).to_owned()).collect()));
        text.push_str(&format!("|{}\n", "---|".repeat(table.head.len())));
        table.rows.iter().for_each(|row| text.push_str(&line(row.iter().map(|text| cell(text)).collect())));
    }
    text
}

/// Light and dark, desk and phone: a table or picture that is too wide is moved by itself, the page never.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--dim:#667085;--line:#d7dce4;--paper:#fff;--card:#f6f8fa}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#98a2b3;--line:#39414f;--paper:#12161d;--card:#1a202a}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.7rem;line-height:1.2;margin:0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}p{color:var(--dim);margin:.2rem 0 .8rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
th:last-child,td:last-child{padding-right:0}.n{text-align:right;white-space:nowrap}\
th{font-weight:600;color:var(--dim);font-size:.85rem}code{font-size:.8rem;overflow-wrap:anywhere}tbody tr:hover{background:var(--card)}\
figure{margin:0;background:var(--card);border-radius:8px;padding:1rem;overflow-x:auto}\
svg{display:block;max-width:100%;min-width:30rem;height:auto}svg text{fill:var(--ink);font:12px system-ui,sans-serif}\
svg .dim{fill:var(--dim)}svg .axis{stroke:var(--line)}svg .error{stroke:var(--ink)}";

fn html(report: &Report, title: &str) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1><p>Made by tern {} at {}.</p>\n",
        env!("CARGO_PKG_VERSION"),
        date::utc(date::now()),
    );
    for (name, about, plot) in report.plots() {
        let _ = write!(page, "<h2>{name}</h2>\n<p>{about}</p>\n<figure>{plot}</figure>\n");
    }
    for table in report.tables() {
        let _ = writeln!(page, "<h2>{}</h2>", table.title);
        if !table.about.is_empty() {
            let _ = writeln!(page, "<p>{}</p>", escaped(&table.about));
        }
        page.push_str("<div class=\"wide\"><table><thead><tr>");
        for (column, cell) in table.head.iter().enumerate() {
            let numbers = table.rows.iter().all(|row| is_number(&row[column]));
            let _ = write!(page, "<th{}>{cell}</th>", if numbers { " class=\"n\"" } else { "" });
        }
        page.push_str("</tr></thead><tbody>\n");
        for row in table.rows {
            page.push_str("<tr>");
            for cell in &row {
                let text = escaped(cell);
                let _ = match (is_number(cell), is_hash(cell)) {
                    (true, _) => write!(page, "<td class=\"n\">{text}</td>"),
                    (_, true) => write!(page, "<td><code>{text}</code></td>"),
                    _ => write!(page, "<td>{text}</td>"),
                };
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody></table></div>\n");
    }
    page.push_str("</body></html>\n");
    page
}

/// Whether a cell stands to the right: a number, a share, or the lack of one.
fn is_number(cell: &str) -> bool {
    cell == "–" || cell.trim_end_matches('%').parse::<f64>().is_ok()
}

fn is_hash(cell: &str) -> bool {
    cell.len() == 64 && cell.bytes().all(|byte| byte.is_ascii_hexdigit())
}
