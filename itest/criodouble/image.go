package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imageService is the double's other service.
type imageService struct {
	cri.UnimplementedImageServiceServer
	*double
}

// lookup finds an image by its ID or one of its names, short or whole.
func (d *double) lookup(name string) (*storage.Image, error) {
	for _, candidate := range []string{name, name + ":latest", "localhost/" + name, "localhost/" + name + ":latest"} {
		if image, err := d.store.Image(candidate); err == nil && name != "" {
			return image, nil
		}
	}
	return nil, notFound("image %q not found: %v", name, storage.ErrImageUnknown)
}

// digestOf is an image's reference by digest, NAME@DIGEST.
func digestOf(i *storage.Image, asked string) string {
	name := asked
	if len(i.Names) > 0 {
		name = i.Names[0]
	}
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		name = name[:at]
	}
	return name + "@" + i.Digest.String()
}

func (d *double) criImage(i *storage.Image) *cri.Image {
	c := &cri.Image{Id: i.ID, RepoTags: i.Names, Spec: &cri.ImageSpec{}, Pinned: d.isPinned(i)}
	if i.Digest != "" {
		c.RepoDigests = []string{digestOf(i, "<none>")}
	}
	if size, err := d.store.ImageSize(i.ID); err == nil && size > 0 {
		c.Size = uint64(size)
	}
	return c
}

// isPinned follows CRI-O's pinned_images: exact names, PREFIX* and *WORD*; the pause image too.
func (d *double) isPinned(i *storage.Image) bool {
	for _, name := range i.Names {
		if name == d.pause {
			return true
		}
		for _, pattern := range d.pinned {
			word := strings.Trim(pattern, "*")
			switch {
			case strings.HasPrefix(pattern, "*") && strings.HasSuffix(pattern, "*"):
				if strings.Contains(name, word) {
					return true
				}
			case strings.HasSuffix(pattern, "*"):
				if strings.HasPrefix(name, word) {
					return true
				}
			case name == pattern:
				return true
			}
		}
	}
	return false
}

// ListImages lists images.
func (s imageService) ListImages(_ context.Context, r *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	if name := r.GetFilter().GetImage().GetImage(); name != "" {
		image, _ := s.lookup(name)
		if image == nil {
			return &cri.ListImagesResponse{}, nil
		}
		return &cri.ListImagesResponse{Images: []*cri.Image{s.criImage(image)}}, nil
	}
	images, err := s.store.Images()
	if err != nil {
		return nil, err
	}
	list := &cri.ListImagesResponse{}
	for i := range images {
		list.Images = append(list.Images, s.criImage(&images[i]))
	}
	return list, nil
}

// ImageStatus tells of one image; of none, without error, where there is no such.
func (s imageService) ImageStatus(_ context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	name := r.GetImage().GetImage()
	if name == "" {
		return nil, errors.New("no image specified")
	}
	image, _ := s.lookup(name) // none is no error
	if image == nil {
		return &cri.ImageStatusResponse{}, nil
	}
	return &cri.ImageStatusResponse{Image: s.criImage(image)}, nil
}

// ImageFsInfo says where images and containers are (server/image_fs_info.go).
func (s imageService) ImageFsInfo(context.Context, *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	path := filepath.Join(s.store.GraphRoot(), s.store.GraphDriverName()+"-images")
	var bytes, inodes uint64
	err := filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		bytes, inodes = bytes+uint64(info.Size()), inodes+1
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("get image fs info unable to get usage for %s: %w", path, err)
	}
	usage := &cri.FilesystemUsage{Timestamp: time.Now().UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: path},
		UsedBytes: &cri.UInt64Value{Value: bytes}, InodesUsed: &cri.UInt64Value{Value: inodes}}
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{usage}, ContainerFilesystems: []*cri.FilesystemUsage{usage}}, nil
}

// RemoveImage removes an image that has no container; a pin does not keep it.
func (s imageService) RemoveImage(_ context.Context, r *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	image, _ := s.lookup(r.GetImage().GetImage()) // none is no error
	if image == nil {
		return &cri.RemoveImageResponse{}, nil
	}
	if _, err := s.store.DeleteImage(image.ID, true); err != nil {
		return nil, err
	}
	return &cri.RemoveImageResponse{}, nil
}

// addImage makes an image of one layer, as "NAME=TARFILE" says. One that is there is kept.
func (d *double) addImage(text string) error {
	name, file, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("-image %q: it is NAME=TARFILE", text)
	}
	if _, err := d.store.Image(name); err == nil {
		return nil
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	layer, _, err := d.store.PutLayer("", "", nil, "", false, nil, strings.NewReader(string(archive)))
	if err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	diff := digest.FromBytes(archive)
	type object = map[string]any
	config := encode(object{"architecture": "amd64", "os": "linux", "created": time.Now().UTC(), "config": object{"Labels": object{"name": name}},
		"rootfs":  object{"type": "layers", "diff_ids": []digest.Digest{diff}},
		"history": []object{{"created": time.Now().UTC(), "created_by": "criodouble"}}})
	id := digest.FromBytes(config)
	manifest := encode(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": object{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id, "size": len(config)},
		"layers": []object{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff, "size": len(archive)}}})
	sum := digest.FromBytes(manifest)
	_, err = d.store.CreateImage(id.Encoded(), []string{name}, layer.ID, "", &storage.ImageOptions{Digest: sum,
		BigData: []storage.ImageBigDataOption{
			{Key: id.String(), Data: config, Digest: id},
			{Key: storage.ImageDigestBigDataKey, Data: manifest, Digest: sum},
			{Key: "manifest-" + sum.String(), Data: manifest, Digest: sum},
		}})
	if err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	return nil
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // what is marshalled here cannot fail
	}
	return text
}
