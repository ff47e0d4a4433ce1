// Elements, numbers and names. All text of the API ends in text nodes.
const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
const count = (n) => number.format(n);
const few = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

function el(tag, classes, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// Clients make names up: what is nothing to see, or turns the direction of text, is written out.
function visible(name) {
  return name.replace(/[\p{Cc}\p{Cf}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function titled(node, title) {
  node.title = title;
  return node;
}

// A Gateway's own part has no consumer where everybody may ask, and no backend where none was reached.
const named = (name) => visible(name) || "unknown";

