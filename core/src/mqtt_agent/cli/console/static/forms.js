// Forms made from a JSON schema, and what they send.
import { ask } from "./ask.js";
import { made } from "./dom.js";

function control(schema) {
  if (Array.isArray(schema.enum)) {
    const input = made("select");
    input.append(made("option", ""));
    for (const each of schema.enum) {
      const option = made("option", typeof each === "string" ? each : JSON.stringify(each));
      option.value = JSON.stringify(each);
      input.append(option);
    }
    return [input, "json"];
  }
  if (schema.type === "boolean") {
    const input = made("select");
    input.append(made("option", ""), made("option", "true"), made("option", "false"));
    return [input, "json"];
  }
  if (schema.type === "string") return [made(schema.long ? "textarea" : "input"), "string"];
  const input = made(schema.type === "integer" || schema.type === "number" ? "input" : "textarea");
  input.placeholder = schema.type === "integer" || schema.type === "number" ? "number" : "JSON";
  return [input, "json"];
}

function field(name, schema, required) {
  const label = made("label");
  const [input, kind] = control(schema);
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
    fields.append(field(name, each && typeof each === "object" ? each : {}, required.includes(name)));
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
