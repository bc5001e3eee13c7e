"""The frame and the style of the page of the report on a collection."""

from string import Template

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Report on $name</title>
<style>
:root {
  --background: #f6f4f0; --surface: #fffefb; --line: #e3dfd7; --ink: #22231f;
  --quiet: #62625b; --accent: #2f6f6a; --soft: #d9e8e5; --wrong: 178 64 48;
}
@media (prefers-color-scheme: dark) {
  :root {
    --background: #171816; --surface: #20221f; --line: #343732; --ink: #eceae4;
    --quiet: #a9aaa2; --accent: #7cc0b8; --soft: #26403d; --wrong: 214 98 80;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 36px 28px; }
body { background: var(--background); color: var(--ink); }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2, h3, p, ul, ol, table, figure { margin: 0; padding: 0; }
h1 { font-size: 1.7rem; letter-spacing: -0.02em; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; }
h3 { font-size: 0.95rem; margin-top: 18px; }
a { color: var(--accent); }
header p { margin-top: 8px; color: var(--quiet); }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 12px; list-style: none; }
section { margin-top: 18px; padding: 16px 18px 18px; background: var(--surface); }
section { border: 1px solid var(--line); border-radius: 14px; }
section p, section ol { margin-top: 8px; max-width: 90ch; }
section ol { padding-left: 1.4em; }
section ol li { margin-top: 6px; }
.note { color: var(--quiet); font-size: 0.9rem; }
.wide { overflow-x: auto; margin-top: 12px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
tbody td { white-space: nowrap; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 500; }
thead th { color: var(--quiet); vertical-align: bottom; }
th[scope="row"], thead th:first-child { text-align: left; }
th { max-width: 260px; overflow-wrap: break-word; }
.best { font-weight: 600; color: var(--accent); }
.bar { width: 120px; padding-right: 0; }
.bar span { display: block; height: 8px; border-radius: 4px; background: var(--accent); }
.matrix td, .matrix th { padding: 4px 7px; }
.matrix td { border: 1px solid var(--line); min-width: 44px; text-align: center; }
.matrix thead th { max-width: 160px; text-align: center; }
.matrix .right { background: var(--soft); }
.pictures { display: grid; gap: 16px; margin-top: 12px; list-style: none; }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(170px, 45%), 1fr)); }
.pictures li { font-size: 0.84rem; overflow-wrap: anywhere; }
.pictures div { aspect-ratio: 1; overflow: hidden; background: var(--background); }
.pictures div { border: 1px solid var(--line); border-radius: 8px; }
img { display: block; width: 100%; height: 100%; object-fit: scale-down; }
.pictures p { margin-top: 5px; line-height: 1.35; }
.pictures p + p { margin-top: 2px; color: var(--quiet); }
</style>
</head>
<body>
<header>
<h1>Report on $name</h1>
<p>$summary</p>
<nav aria-label="Contents">
<ul>
$contents</ul>
</nav>
</header>
<main>
$sections</main>
</body>
</html>
""")

SECTION = Template("""\
<section aria-labelledby="$id">
<h2 id="$id">$title</h2>
$content
</section>
""")

PICTURE = Template("""\
<li>
<div><img src="data:image/jpeg;base64,$thumbnail" alt="$alt" loading="lazy"></div>
<p>$title</p>
<p>$details</p>
<p>$path</p>
</li>
""")
