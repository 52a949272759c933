"""The report's look: its style, and the frame around an executed notebook's cells (Jinja, for nbconvert)."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2024; --soft: #5d6770; --line: #d9dee3; --paper: #fff; --shade: #f6f8fa; --link: #0b5cad; --edge: #0003;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e3e7eb; --soft: #a3adb7; --line: #3a424a; --paper: #14181c; --shade: #1e242a; --link: #7db7f0;
    --edge: #fff3;
  }
  img, svg { background: #fff; border-radius: 4px; }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 16px/1.6 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
nav { font-size: 0.85rem; line-height: 1.4; columns: 18rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li { margin: 0.3rem 0; }
nav .h2 { padding-left: 1rem; color: var(--soft); }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
h1, h2, h3 { line-height: 1.25; margin: 2.2rem 0 0.8rem; }
h1 { border-bottom: 1px solid var(--line); padding-bottom: 0.3rem; }
.anchor-link { visibility: hidden; margin-left: 0.4rem; }
:hover > .anchor-link, .anchor-link:focus { visibility: visible; }
.output_subarea, .rendered_html {
  overflow-x: auto; overflow-y: hidden;  /* a shadow at an edge says that there is more beyond it */
  background:
    linear-gradient(to right, var(--paper) 30%, transparent) left / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 30%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to right, var(--edge), transparent) left / 0.7rem 100% no-repeat scroll,
    linear-gradient(to left, var(--edge), transparent) right / 0.7rem 100% no-repeat scroll;
}
img, svg { display: block; max-width: 100%; height: auto; margin: 1rem 0; }
math { font: 1.1em "STIX Two Math", "Latin Modern Math", "Cambria Math", "DejaVu Math TeX Gyre", math; }
math[display="block"] { margin: 1.2rem 0; }
table { border: 0; border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; }
th, td { border: 0; border-bottom: 1px solid var(--line); padding: 0.25rem 0.7rem; text-align: right; }
th { font-weight: 600; }
.text_cell th, .text_cell td, th:first-child, tbody th { text-align: left; }
tbody th { white-space: nowrap; }
.text_cell td { vertical-align: top; }
code, pre { font: 0.85em/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { margin: 0; padding: 0.7rem; overflow-x: auto; background: var(--shade); border-radius: 4px; }
.output_text pre, .output_stdout pre { background: none; padding-left: 0; }
details { margin: 0.5rem 0; }
summary { color: var(--soft); cursor: pointer; font-size: 0.8rem; }
.part > summary { font-size: 1rem; padding: 0.5rem 0; border-top: 1px solid var(--line); }
@media print {
  @page { margin: 15mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 16pt; }
  h2 { font-size: 12pt; }
  .anchor-link, details:not([open]) { display: none; }
  h1, h2, h3 { break-after: avoid; }
  img, svg, tr, math { break-inside: avoid; }
  img, svg { max-height: 240mm; object-fit: contain; }
  table { font-size: 7.5pt; }
  th, td { padding: 1pt 4pt; }
  pre { white-space: pre-wrap; }
  .output_subarea, .rendered_html { overflow: visible; }
}
"""
TEMPLATE = """\
{%- extends 'basic/index.html.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ resources.policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.title | escape_html }}</title>
<style>{{ resources.style }}</style>
</head>
<body>
<main>
{% endblock header -%}
{%- block any_cell -%}
{%- if cell.metadata.opens -%}<details class="part"><summary>{{ cell.metadata.opens }}</summary>{%- endif -%}
{{ super() }}
{%- if cell.metadata.closes -%}</details>{%- endif -%}
{%- endblock any_cell -%}
{%- block input_group -%}
<details><summary>code</summary>{{ super() }}</details>
{%- endblock input_group -%}
{%- block stream_stderr -%}
<details><summary>log</summary>{{ super() }}</details>
{%- endblock stream_stderr -%}
{%- block footer -%}
</main>
</body>
</html>
{%- endblock footer -%}
"""
