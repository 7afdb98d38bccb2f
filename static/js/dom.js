// Small helpers around the document. Text always goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

export function fromTemplate(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}

export function part(root, name) {
  return root.querySelector(`[data-part="${name}"]`);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes `list` show one child per item, in order. Children of items that stay are kept, so focus and typing survive.
export function showItems(list, items, make, update) {
  const children = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let previous = null;
  for (const item of items) {
    const key = String(item.id);
    const child = children.get(key) ?? make(item);
    children.delete(key);
    child.dataset.key = key;
    const expected = previous ? previous.nextElementSibling : list.firstElementChild;
    if (child !== expected) list.insertBefore(child, expected);
    update(child, item);
    previous = child;
  }
  for (const child of children.values()) child.remove();
}

export function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}
