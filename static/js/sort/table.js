// Answers as a table for spreadsheets (RFC 4180).

export function tableOf(bench) {
  const rows = [["picture", "class", "certainty", "probability", "second class", "second probability"]];
  for (const query of bench.queries) {
    if (query.refused) continue;
    const verdict = bench.verdict(query);
    const [first, second] = query.answer?.scores ?? [];
    rows.push([
      query.name,
      verdict?.label ?? (verdict ? "none of these" : ""),
      verdict?.bySomebody ? "by hand" : (verdict?.certainty ?? ""),
      first ? first.probability.toFixed(4) : "",
      second ? (bench.nameOf(second) ?? "") : "",
      second ? second.probability.toFixed(4) : "",
    ]);
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  // A spreadsheet would run what looks like a formula.
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
