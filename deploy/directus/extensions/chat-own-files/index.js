const PLACED = ['id', 'filename_disk']

// An attachment may name only a file that was uploaded by who creates or changes it; an administrator's may name any.
// And nobody else chooses where a file's bytes lie: under a name like another's they would be read, replaced or deleted with that;
// or what address they come from: he would read what this host may fetch and he may not, such as the gateway's figures.
export default ({ filter }, { services, env }) => {
  const refused = (message) => {
    const error = { name: 'DirectusError', code: 'FORBIDDEN', status: 403, extensions: {} }
    return Object.assign(new Error(message), error)
  }

  const check = async (payload, _meta, { database, accountability }) => {
    if (payload.file_url === undefined || !accountability || accountability.admin) return payload
    const file = { id: String(payload.file_url).replace(/^\//, ''), uploaded_by: accountability.user ?? '' }
    if (await database('directus_files').where(file).first('id')) return payload
    throw refused('file_url names no file that you uploaded.')
  }
  filter('message_attachments.items.create', check)
  filter('message_attachments.items.update', check)

  // Directus asks no filter about an upload, so its service is asked: all kinds of creation, and replacement, pass here.
  const [storage] = [env.STORAGE_LOCATIONS].flat().join().split(',')
  const files = services.FilesService.prototype
  const guard = (name, fault) => {
    const original = files[name]
    files[name] = async function (...given) {
      const found = this.accountability && !this.accountability.admin && fault(...given)
      if (found) throw refused(found)
      return original.apply(this, given)
    }
  }
  const placed = (data) =>
    (PLACED.some((field) => data[field] !== undefined) || (data.storage ?? storage) !== storage) &&
    'You may not choose where a file is kept.'
  guard('createOne', placed)
  guard('updateMany', (_keys, data) => placed(data))
  guard('importOne', () => 'You may not import a file from an address.')
}
