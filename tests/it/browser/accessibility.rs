//! A small accessibility check that runs inside the page.

use super::session::Session;
use serde_json::{Value, json};
use std::fs;
use test_support::project;

const SMALL_PHONE_WIDTH: u32 = 360;

/// Panics where axe-core finds a barrier in the page as it is now. Without axe-core (`scripts/fetch_axe`) nothing is looked at, which
/// continuous integration does not accept.
pub async fn assert_axe_finds_nothing(page: &Session, what: &str) {
    let Ok(axe) = fs::read_to_string(project(".axe/axe.min.js")) else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "axe-core is not there; scripts/fetch_axe fetches it"
        );
        eprintln!("axe-core is not there (scripts/fetch_axe), so it looked at nothing");
        return;
    };
    let begin = format!(
        "{axe};
        window.found = null;
        axe.run(document, {{ resultTypes: ['violations'] }}).then(({{ violations, passes }}) => {{
            window.found = [passes.length, violations.map(({{ id, help, nodes }}) => `${{id}}: ${{help}}: ${{nodes.map((node) => node.html).join(' ')}}`)];
        }}, (error) => {{ window.found = [0, [String(error)]]; }});"
    );
    page.client.execute(&begin, vec![]).await.unwrap();
    page.wait_for("window.found").await;
    let found = page.value("window.found").await;
    assert!(found[0].as_u64() > Some(10), "it looked at little: {found}");
    assert_eq!(found[1], Value::Array(vec![]), "{what}");
}

/// Opens each of `paths` on a small phone in both colour schemes, runs the script `prepare` there, and panics where the check below
/// complains, the page is wider than the phone, or anything was said on the console.
pub async fn assert_on_a_small_phone(page: &Session, paths: &[&str], prepare: &str) {
    page.devtools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": SMALL_PHONE_WIDTH, "height": 740, "deviceScaleFactor": 1, "mobile": true}),
    )
    .await;
    for scheme in ["light", "dark"] {
        page.devtools(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        )
        .await;
        for path in paths {
            page.open(path).await;
            page.wait_for("document.documentElement.dataset.ready === 'true'")
                .await;
            page.client.execute(prepare, vec![]).await.unwrap();
            let complaints = page.client.execute(CHECK, vec![]).await.unwrap();
            assert_eq!(complaints, json!([]), "{path} in the {scheme} scheme");
            let width = page.value("document.documentElement.scrollWidth").await;
            assert_eq!(width, SMALL_PHONE_WIDTH, "{path}");
        }
    }
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
}

/// Opens everything that is folded and ticks every box.
pub const UNFOLD: &str =
    "for (const details of document.querySelectorAll('details')) details.open = true;
    for (const box of document.querySelectorAll('input[type=checkbox]')) box.click();";

/// Returns a list of complaints: controls and pictures without a name, missing landmarks, headings out of order, ids that
/// stand twice, and text whose contrast is below WCAG 2's 4.5 to 1 (3 to 1 where it is large).
pub const CHECK: &str = r#"
const complaints = [];
const visible = (element) => element.checkVisibility({ checkVisibilityCSS: true });
const say = (element, what) =>
    complaints.push(`${what}: <${element.tagName.toLowerCase()} id="${element.id}" class="${element.className}"> ${element.textContent.trim().slice(0, 40)}`);

const byIds = (ids) => ids.split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? '').join(' ');
const nameOf = (element) => (
    (element.getAttribute('aria-labelledby') && byIds(element.getAttribute('aria-labelledby')))
    || element.getAttribute('aria-label')
    || [...(element.labels ?? [])].map((label) => label.textContent).join(' ')
    || (element.matches('button, a') && [...element.childNodes].filter((node) => node.ariaHidden !== 'true').map((node) => node.alt ?? node.textContent).join(' '))
    || ''
).trim();
for (const control of document.querySelectorAll('button, a[href], input, select, textarea, progress, section, nav, dialog')) {
    if ((visible(control) || control.matches('.picker-input, dialog')) && !nameOf(control)) say(control, 'no name');
}
for (const image of document.images) if (!image.hasAttribute('alt')) say(image, 'no alternative text');
if ([...document.querySelectorAll('h1')].filter(visible).length !== 1) complaints.push('not exactly one h1');
for (const landmark of ['header', 'main', 'nav', 'footer']) {
    if (document.querySelectorAll(landmark).length !== 1) complaints.push(`not exactly one ${landmark}`);
}
if (!document.documentElement.lang) complaints.push('no language');
let level = 0;
for (const heading of [...document.querySelectorAll('h1, h2, h3, h4')].filter(visible)) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) say(heading, 'heading skips a level');
    level = next;
}
const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
for (const id of new Set(ids.filter((id, index) => ids.indexOf(id) !== index))) complaints.push(`id appears twice: ${id}`);
if (!document.querySelector('[role=status]')) complaints.push('no live region');

const parse = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
};
const over = (top, below) => top.rgb.map((value, index) => value * top.alpha + below[index] * (1 - top.alpha));
const backgroundOf = (element) => {
    const chain = [];
    for (let each = element; each; each = each.parentElement) chain.unshift(each);
    return chain.reduce((below, each) => over(parse(getComputedStyle(each).backgroundColor), below), [255, 255, 255]);
};
const luminance = (rgb) => {
    const [red, green, blue] = rgb.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((left, right) => left - right);
    return (high + 0.05) / (low + 0.05);
};
let texts = 0;
for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!visible(element) || element.matches('.only-spoken') || !(own || element.matches('input[type=text]'))) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const background = backgroundOf(element);
    const found = ratio(over(parse(style.color), background), background);
    const size = Number.parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (found < (large ? 3 : 4.5)) say(element, `contrast ${found.toFixed(2)}`);
}
if (texts < 15) complaints.push(`only ${texts} texts were looked at`);
for (const fill of [...document.querySelectorAll('.bar-fill, .tile-swatch, .swatch')].filter(visible)) {
    const found = ratio(parse(getComputedStyle(fill).backgroundColor).rgb, backgroundOf(fill.parentElement));
    if (found < 3) say(fill, `contrast of a coloured part ${found.toFixed(2)}`);
}
return complaints;
"#;
