// Forms made from a JSON schema, and what they send.
import { ask } from "./ask.js";
import { made } from "./dom.js";

const DEPTH = 4, LEVELS = 2, MOST = 8;

function definition(root, address) {
  const keys = address.startsWith("#/") ? address.slice(2).split("/") : [];
  return keys.reduce((found, key) => Object.hasOwn(Object(found), key) ? found[key] : undefined, root);
}

// What a schema means: the definition behind a "$ref", and the one kind of a value that may also be null.
function meant(schema, root, depth = DEPTH) {
  if (schema === null || typeof schema !== "object" || depth === 0) return {};
  const ways = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  const real = Array.isArray(ways) ? ways.filter((each) => each?.type !== "null") : [];
  const behind = typeof schema.$ref === "string" ? definition(root, schema.$ref) : real.length === 1 ? real[0] : undefined;
  const whole = behind === undefined ? { ...schema } : { ...meant(behind, root, depth - 1), ...schema };
  const kinds = Array.isArray(whole.type) ? whole.type.filter((each) => each !== "null") : [whole.type];
  return { ...whole, type: kinds.length === 1 ? kinds[0] : undefined };
}

// A value of the right form, for a person to change.
function example(schema, root, levels = LEVELS) {
  const each = meant(schema, root), inner = (of) => example(of, root, levels - 1);
  if (each.default !== undefined) return each.default;
  if (Array.isArray(each.enum)) return each.enum[0];
  if (each.type === "array") return levels ? [inner(each.items)] : [];
  const names = Object.entries(Object(each.properties)).slice(0, levels ? MOST : 0);
  if (each.type === "object") return Object.fromEntries(names.map(([name, of]) => [name, inner(of)]));
  return { string: "", integer: 0, number: 0, boolean: false }[each.type] ?? null;
}

function choice(values, preset) {
  const input = made("select");
  input.append(made("option", preset === undefined ? "" : `default: ${preset}`));
  input.firstChild.value = "";
  for (const each of values) {
    const option = made("option", typeof each === "string" ? each : JSON.stringify(each));
    option.value = JSON.stringify(each);
    input.append(option);
  }
  return input;
}

function control(schema, root) {
  const { type } = schema;
  if (Array.isArray(schema.enum)) return [choice(schema.enum, schema.default ?? undefined), "json"];
  if (type === "boolean") return [choice([true, false], schema.default ?? undefined), "json"];
  if (type === "string") return [made(schema.long ? "textarea" : "input"), "string"];
  const number = type === "integer" || type === "number", input = made(number ? "input" : "textarea");
  input.placeholder = number ? "number" : "JSON" + (type === "array" || type === "object" ? `, such as ${JSON.stringify(example(schema, root))}` : "");
  return [input, "json"];
}

function field(name, given, required, root) {
  const label = made("label"), schema = meant(given, root);
  const [input, kind] = control(schema, root);
  input.name = name;
  input.dataset.kind = kind;
  input.dataset.required = required ? "yes" : "";
  if (schema.default !== undefined && schema.default !== null) {
    input.placeholder = kind === "string" ? String(schema.default) : JSON.stringify(schema.default);
  }
  label.append(made("span", name + (required ? " (required)" : "")), input);
  if (schema.description) label.append(made("small", schema.description));
  return label;
}

function read(input) {
  if (input.value === "") {
    if (input.dataset.required) throw new Error(`${input.name} is required`);
    return undefined;
  }
  if (input.dataset.kind === "string") return input.value;
  try {
    return JSON.parse(input.value);
  } catch {
    throw new Error(`${input.name} must be JSON, such as 3, "text" or [1, 2]`);
  }
}

export async function send(action, given) {
  const answer = await ask("/" + action, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given),
  });
  const said = await answer.json();
  if (said.error) throw new Error(said.error);
  return said;
}

// A form with one field for each property. `done` gets the values, and returns what is then shown.
export function form(schema, word, done, why) {
  const fields = made("form"), said = made("pre"), button = made("button", why || word);
  const properties = schema.properties ?? {}, required = Array.isArray(schema.required) ? schema.required : [];
  said.className = "said";
  for (const [name, each] of Object.entries(properties)) {
    fields.append(field(name, each, required.includes(name), schema));
  }
  button.disabled = Boolean(why);
  fields.append(button);
  fields.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    said.className = "said";
    said.textContent = "sending ...";
    try {
      const values = {};
      for (const input of fields.elements) {
        const value = input.name ? read(input) : undefined;
        if (value !== undefined) values[input.name] = value;
      }
      said.textContent = await done(values);
    } catch (error) {
      said.className = "said fault";
      said.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  };
  return [fields, said];
}
