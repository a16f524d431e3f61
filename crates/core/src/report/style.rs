//! The look of reports.

/// Style sheet; colours follow the reader's light or dark setting.
pub(super) const CSS: &str = "
:root { --text: #1b1f24; --back: #ffffff; --soft: #59636e; --line: #d1d9e0; --panel: #f6f8fa; --link: #0550ae;
  --good: #116329; --bad: #b42318; --open: #7a4d00; --best: #eef7f0; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --soft: #9aa4af; --line: #30363d;
  --panel: #161b22; --link: #79b8ff; --good: #56d364; --bad: #ff8a80; --open: #e3b341; --best: #12261a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.25rem; }
a { color: var(--link); }
code { font: .85em ui-monospace, monospace; background: var(--panel); padding: .1em .3em; border-radius: 4px;
  overflow-wrap: anywhere; }
.meta { color: var(--soft); font-size: .875rem; margin: .4rem 0; }
.note { border-left: 3px solid var(--line); padding-left: .75rem; color: var(--soft); }
.failure { color: var(--bad); font-size: .9rem; margin: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .75rem 0; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
th, td:first-child { white-space: nowrap; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.best { background: var(--best); }
.badge { font-size: .8rem; font-weight: 600; border: 1px solid currentColor; border-radius: 999px;
  padding: .05rem .55rem; white-space: nowrap; }
.holds { color: var(--good); } .fails { color: var(--bad); }
.undecided { color: var(--open); } .not-tried { color: var(--soft); }
figure { margin: .75rem 0; } figcaption { color: var(--soft); font-size: .875rem; }
svg { max-width: 100%; height: auto; color: var(--text); }
details summary { cursor: pointer; color: var(--link); font-size: .9rem; }
";
