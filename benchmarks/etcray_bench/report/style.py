"""The style sheet of a page: light and dark, as the reader's system says."""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2024; --faint: #5f6b76; --grid: #d9dee3; --panel: #f6f8fa; --mark: #c2185b;
  --good: #1a7f37; --bad: #c62828;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #009e73; --series-3: #9c4f96;
  --series-4: #8a6d00; --series-5: #3e7cb1; --series-6: #7a3b2e; --series-7: #5b616a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e6eaee; --faint: #9aa6b2; --grid: #3a434c; --panel: #1c2227; --mark: #ff6f9f;
    --good: #57c46f; --bad: #ff7b72;
    --series-0: #56b4e9; --series-1: #ff9e57; --series-2: #3ddbaa; --series-3: #d79bd2;
    --series-4: #e8cf5b; --series-5: #8fc1ea; --series-6: #d69a8c; --series-7: #aab4be;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .3rem; padding-top: 1rem; border-top: 1px solid var(--grid); }
p { margin: .3rem 0; max-width: 60rem; }
.faint { color: var(--faint); font-size: .9rem; }
nav a { margin-right: 1rem; }
a { color: var(--series-0); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem;
  margin: 1rem 0; }
figure { margin: 0; padding: .8rem; background: var(--panel); border-radius: 6px; }
figure h3 { font-size: 1rem; margin: 0; }
figure svg { width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
th { font-weight: 600; color: var(--faint); }
th.word, td.word { text-align: left; white-space: normal; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--faint); }
"""
