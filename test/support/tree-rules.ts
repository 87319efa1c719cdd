/** What the tree must not have, told of any sources, so that each rule can be seen to fail. */
import { builtinModules } from 'node:module';
import ts from 'typescript';
import {
  type SourceText,
  importSpecifiers,
  isExported,
  parse,
  projectImports,
  visit,
} from './source-tree.js';

/** What each layer may import besides itself and the leaves: folders, or prefixes of files. */
export type Layers = Readonly<Record<string, readonly string[] | undefined>>;

/**
 * Imports of what lies above, or beside where nothing is allowed.
 *
 * @param leaves files that may be imported from anywhere, and import nothing but one another
 */
export function upwardImports(
  sources: readonly SourceText[],
  layers: Layers,
  leaves: readonly string[],
): string[] {
  const wrong: string[] = [];
  for (const source of sources) {
    const layer = source.name.split('/')[1];
    const isLeaf = leaves.includes(source.name);
    const below = layers[layer];
    if (!isLeaf && below === undefined) {
      wrong.push(`${source.name} lies in no known layer`);
      continue;
    }
    const allowed = isLeaf ? leaves : [`src/${layer}/`, ...leaves, ...below!];
    for (const imported of projectImports(source)) {
      if (!allowed.some((prefix) => imported.startsWith(prefix))) {
        wrong.push(`${source.name} imports ${imported}`);
      }
    }
  }
  return wrong;
}

/**
 * Imports between the rooms of a folder that point upwards, and files that lie in none.
 *
 * @param folder ends with a slash
 * @param rooms from the ground up: folders, each of which may import from those before it, and `''` for the
 *   files that lie beside them
 */
export function upwardBetweenRooms(
  sources: readonly SourceText[],
  folder: string,
  rooms: readonly string[],
): string[] {
  const floorOf = (name: string): number => {
    const rest = name.slice(folder.length);
    return rooms.indexOf(rest.includes('/') ? rest.slice(0, rest.indexOf('/')) : '');
  };
  const wrong: string[] = [];
  for (const source of sources) {
    if (!source.name.startsWith(folder)) continue;
    const floor = floorOf(source.name);
    if (floor === -1) wrong.push(`${source.name} lies in no known room`);
    for (const imported of projectImports(source)) {
      if (imported.startsWith(folder) && floorOf(imported) > floor) {
        wrong.push(`${source.name} imports ${imported}`);
      }
    }
  }
  return wrong;
}

/**
 * Where sources outside a folder name what only the folder may name, or import from a room of it.
 *
 * @param folder ends with a slash
 * @param rooms of it, from which nobody else imports
 * @param names texts that no string outside may be
 */
export function namedOutside(
  sources: readonly SourceText[],
  folder: string,
  rooms: readonly string[],
  names: readonly string[],
): string[] {
  const wrong: string[] = [];
  for (const source of sources) {
    if (source.name.startsWith(folder)) continue;
    for (const imported of projectImports(source)) {
      if (rooms.some((room) => imported.startsWith(`${folder}${room}/`))) {
        wrong.push(`${source.name} imports ${imported}`);
      }
    }
    visit(parse(source), (node) => {
      if (ts.isStringLiteralLike(node) && names.includes(node.text)) {
        wrong.push(`${source.name} names ${node.text}`);
      }
    });
  }
  return wrong;
}

/** Where a decision is taken by the text of a message, which is for people: what codes and facts are for. */
export function messageReaders(sources: readonly SourceText[]): string[] {
  const wrong: string[] = [];
  for (const source of sources) {
    const tree = parse(source);
    visit(tree, (node) => {
      if (isMessage(node) && readsText(node)) {
        const { line } = tree.getLineAndCharacterOfPosition(node.getStart());
        wrong.push(`${source.name}:${line + 1} reads a message`);
      }
    });
  }
  return wrong;
}

function isMessage(node: ts.Node): boolean {
  if (ts.isPropertyAccessExpression(node)) return node.name.text === 'message';
  if (!ts.isIdentifier(node) || node.text !== 'message') return false;
  return !ts.isPropertyAccessExpression(node.parent) || node.parent.name !== node;
}

/** Whether a text is asked something, compared with another, or tried on a pattern. */
function readsText(node: ts.Node): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent) && parent.expression === node) {
    return ts.isCallExpression(parent.parent) && parent.parent.expression === parent;
  }
  if (ts.isBinaryExpression(parent)) {
    const isEqual = /^[!=]==$/.test(parent.operatorToken.getText());
    const sides = [parent.left, parent.right].map((side) => side.getText());
    // Whether there is any is not what it says.
    return isEqual && !sides.includes('undefined') && !sides.includes("''");
  }
  if (!ts.isCallExpression(parent) || !parent.arguments.some((each) => each === node)) return false;
  const called = parent.expression;
  return ts.isPropertyAccessExpression(called) && ['exec', 'test'].includes(called.name.text);
}

/** Files that import each other in a circle, types included: each circle as its files, from the first. */
export function importCircles(sources: readonly SourceText[]): string[] {
  const imports = new Map(sources.map((source) => [source.name, projectImports(source)]));
  const done = new Set<string>();
  const circles: string[] = [];
  const follow = (name: string, path: readonly string[]): void => {
    const begin = path.indexOf(name);
    if (begin !== -1) circles.push([...path.slice(begin), name].join(' > '));
    if (begin !== -1 || done.has(name)) return;
    for (const imported of new Set(imports.get(name) ?? [])) follow(imported, [...path, name]);
    done.add(name);
  };
  for (const { name } of sources) follow(name, []);
  return circles;
}

/**
 * Names that `sources` export and nobody imports, but for types that say what another export is made of.
 *
 * @param users all who may import them
 * @param entries files whose exports are for others than the project
 */
export function deadExports(
  sources: readonly SourceText[],
  users: readonly SourceText[],
  entries: readonly string[],
): string[] {
  const used = new Set<string>();
  for (const user of users) noteImports(user, (file, name) => used.add(`${file}: ${name}`));
  return sources
    .filter(({ name }) => !entries.includes(name) && !used.has(`${name}: *`))
    .flatMap((source) => exportedNames(source).map((name) => `${source.name}: ${name}`))
    .filter((name) => !used.has(name));
}

/** Tells which names of which files of the project a source uses; `*` stands for all. */
function noteImports(source: SourceText, note: (file: string, name: string) => void): void {
  const fileOf = (specifier: ts.Expression | undefined): string | undefined =>
    specifier !== undefined && ts.isStringLiteral(specifier)
      ? projectImports({ name: source.name, text: `import ${specifier.getText()};` })[0]
      : undefined;
  visit(parse(source), (node) => {
    if (ts.isImportDeclaration(node)) {
      const file = fileOf(node.moduleSpecifier);
      const bindings = node.importClause?.namedBindings;
      if (file === undefined || bindings === undefined) return;
      if (ts.isNamespaceImport(bindings)) note(file, '*');
      else for (const one of bindings.elements) note(file, (one.propertyName ?? one.name).text);
    } else if (ts.isExportDeclaration(node)) {
      const file = fileOf(node.moduleSpecifier);
      if (file === undefined) return;
      if (node.exportClause === undefined || ts.isNamespaceExport(node.exportClause))
        note(file, '*');
      else
        for (const one of node.exportClause.elements)
          note(file, (one.propertyName ?? one.name).text);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const file = fileOf(node.arguments[0]);
      if (file !== undefined) note(file, '*');
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      const file = fileOf(node.argument.literal);
      if (file !== undefined) note(file, '*');
    }
  });
}

function exportedNames(source: SourceText): string[] {
  const isMentioned = (name: string): boolean =>
    source.text.split(new RegExp(`\\b${name}\\b`)).length > 2;
  return parse(source).statements.flatMap((statement) => {
    if (ts.isExportDeclaration(statement)) {
      const clause = statement.exportClause;
      return clause !== undefined && ts.isNamedExports(clause)
        ? clause.elements.map(({ name }) => name.text)
        : [];
    }
    if (!isExported(statement)) return [];
    if (ts.isVariableStatement(statement)) {
      return statement.declarationList.declarations.flatMap(({ name }) => boundNames(name));
    }
    const { name } = statement as { name?: ts.Identifier };
    if (name === undefined) return [];
    const isType = ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement);
    return isType && isMentioned(name.text) ? [] : [name.text];
  });
}

function boundNames(name: ts.BindingName): string[] {
  if (ts.isIdentifier(name)) return [name.text];
  return name.elements.flatMap((element) =>
    ts.isBindingElement(element) ? boundNames(element.name) : [],
  );
}

/** Packages that are imported and not declared, and those that are declared and not named anywhere. */
export function wrongDependencies(
  sources: readonly SourceText[],
  declared: readonly string[],
  others: readonly SourceText[],
): string[] {
  const packageOf = (specifier: string): string =>
    /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier;
  const imported = new Map<string, string>();
  for (const source of sources) {
    for (const specifier of importSpecifiers(source)) {
      const isOwn = specifier.startsWith('.') || specifier.startsWith('node:');
      if (!isOwn && !builtinModules.includes(specifier)) {
        imported.set(packageOf(specifier), source.name);
      }
    }
  }
  const isNamed = (name: string): boolean => others.some(({ text }) => text.includes(name));
  // Types are used by whoever imports what they describe; those of Node by all.
  const isUsed = (name: string): boolean =>
    imported.has(name.replace(/^@types\//, '')) || name === '@types/node' || isNamed(name);
  return [
    ...[...imported]
      .filter(([name]) => !declared.includes(name))
      .map(([name, source]) => `${source} imports ${name}, which is not declared`),
    ...declared.filter((name) => !isUsed(name)).map((name) => `${name} is declared, and not used`),
  ];
}
